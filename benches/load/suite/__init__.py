"""The parts of the benchmark driver; `run.py` beside this package is what one starts."""
