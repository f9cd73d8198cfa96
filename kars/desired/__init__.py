"""What should stand in the cluster: spec and facts in, Kubernetes objects out. No client, no clock, no chance.

facts       what is known of the world when a sandbox is planned
plan        every object of one sandbox, in the order of their applying; the stamp that tells a plan from another
names       names, labels, annotations and field managers, each in one place
runtime     runtime kind to image, command, variables
pod guard network access config     the parts of a plan
match       whether an object in the cluster still is what was planned
conditions  how conditions and phases come about; for kinds with a life of their own:
allowlist approvals actions pairings evaluations
"""
