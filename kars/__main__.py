"""`python -m kars` is `kars`."""

import sys

from kars.cli import main

if __name__ == "__main__":
    sys.exit(main())
