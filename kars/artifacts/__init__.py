"""Signed artifacts in OCI registries: pull by digest, verify the signature, read the content strictly.

fetch         all of it: reference and SignerPolicy in, verified content or a `Refused` with its reason out
configured    the same with the files that the settings name: root, credentials
held          the last content that was good, kept across restarts and verified again when it is loaded
evidence      an artifact with its signatures as bytes, and their verification, without a network
signatures    cosign's, keyed and keyless, old layers and new bundles
certificates  keyless ones, by the sigstore library against an offline root
keys, claims  keyed ones; what a signature says that it is about
signers       who may sign: the SignerPolicy ConfigMap, or the controller's variables
patterns      exact, glob, regular expression; linear in what is matched
contents      the media types and their canonical forms; corpus is one of them
strict        JSON and YAML as data and nothing else
registry      the distribution API: manifests and blobs by digest, referrers
tokens        challenges and credentials; azure is workload identity
references    where things are; refused is why something is not used
"""
