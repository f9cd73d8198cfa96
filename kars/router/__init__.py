"""The sidecar process: the engine's life, policy on change, and the cold routes when one is asked for."""
