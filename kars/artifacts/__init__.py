"""Signed artifacts in OCI registries: pull by digest, verify the signature, read the content strictly.

registry    the distribution API: manifests and blobs by digest, referrers, tokens
signatures  cosign's, keyed and keyless, old layers and new bundles, against an offline trust root
signers     who may sign: the SignerPolicy ConfigMap, or the controller's variables
contents    the media types and their canonical forms
held        the last content that was good, kept across restarts
fetch       all of it: reference and SignerPolicy in, verified content or a `Refused` with its reason out
"""
