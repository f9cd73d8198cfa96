"""What the controller publishes of each policy kind: documents with fixed key order, their digests, their ConfigMaps.

canonical   compact JSON, digests and version hashes
inference tools memory mcp a2a trust egress evaluation     one file per kind: spec in, document out
"""
