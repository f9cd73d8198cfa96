"""The Python side of kars: the sidecar's process, its policy loader and the command line."""
