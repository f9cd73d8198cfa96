"""The controller: one process that keeps the cluster as the resources say.

process     settings to running tasks, signals, leadership; health and metrics over HTTP
queue       keys that wait, one worker a key, backoff with jitter
reconcile   what a reconciler is: resource in, outcome out
cluster     everything that is known (informers) and everything that may be done (client, children, events)
children    the objects that we made: bring them to what is wanted, with as few requests as that takes
echo        what the routers say is in force
sandboxes   the reconciler of KarsSandbox
policies/   one generic reconciler for every policy kind, a table row each; and the kinds with a life of their own
"""
