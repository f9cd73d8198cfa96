"""The controller: one process that keeps the cluster as the resources say.

process     settings to running tasks, signals, leadership, the way out; `crds` looks whether the cluster is one
engine      the loop: changes become keys, keys calls of reconcilers, and what these say the next look
queue       keys that wait, one worker a key, what was begun first, turns between kinds, backoff with jitter
reconcile   what a reconciler is: resource in, outcome out; `roster` names who reconciles what
cluster     everything that is known (informers) and everything that may be done (client, children, events)
held        what is kept of objects: little
status      statuses as documents: what differs, and whose members are whose; `marks` are the engine's own
children    the objects that we made: bring them to what is wanted, with as few requests as that takes
echo        what the routers say is in force
health      probes and metrics over HTTP; `metrics` are counted, those of `scrape` read off; `logs` are JSON
reference   the page about the variables and metrics
sandboxes   the reconciler of KarsSandbox; facts come by `gather`, conditions by `standing`, the end is `teardown`'s
allowlists  what a sandbox may reach, inline or signed; `images` may run when signed; `announcements` are events
policies/   one generic reconciler for every policy kind, a table row each; and the kinds with a life of their own
"""
