"""kars without a cluster: the same router as a local process, and what to point it at."""
