"""What should stand in the cluster: spec and facts in, Kubernetes objects out. No client, no clock, no chance.

facts       what is known of the world when a sandbox is planned
plan        every object of one sandbox, in the order of their applying; the stamp that tells a plan from another
names       names, labels, annotations, finalizers and field managers, each in one place
access      namespace, account, what the router may do
config      ConfigMaps, Secrets and their copies, claims
network     the NetworkPolicy
pod         the Deployment and the Service: volumes, mounts, containers in their order
guard       the container that lets the agent out by the router only, and its rules
router agent checkout     the containers, and the tables of their variables
runtime     runtime kind to image, command, variables
variables   what the tables of variables have in common
match       whether an object in the cluster still is what was planned
quantity    quantities as numbers
conditions  how conditions and phases come about
    allowlist   which destinations are in force, and what is told of them
"""
