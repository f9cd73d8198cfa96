"""What the controller publishes of each policy kind: documents with fixed key order, their digests, their ConfigMaps.

    outcome     what every compiler takes and gives, and the names that objects bear
    canonical   compact JSON, digests and version hashes
    inference tools memory mcp a2a trust egress evaluation auth     one file per kind: resource in, `Compiled` out
    hosts       which hosts a router's lists can have
    corpora     the corpora that come with kars
    runs        the Jobs of a KarsEval

No client, no clock, no chance: what changes between two calls (time, keys, what was fetched) is given.
"""
