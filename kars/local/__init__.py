"""kars without a cluster: the same sandbox as local processes, and a model server to try it with."""
