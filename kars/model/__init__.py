"""The custom resources of `kars.azure.com/v1alpha1` as frozen structs: one source for schemas, CRDs and decoding.

`kinds` lists them, `decode` turns documents into them, `schema` and `crds` derive what the API server is given. Pure:
nothing here reads the environment, the clock or the network, and only `python -m kars.model.crds` writes files.
"""
