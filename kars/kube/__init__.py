"""The only room that knows the Kubernetes API: a client of raw objects, informers, a lease, events.

    client.Client       get, list, apply, patch, create, delete, watch; one connection pool, typed errors
    informer.Informer   list and watch with resume, bookmarks and a watchdog; holds what it saw
    lease.Lease         leader election over coordination.k8s.io/v1
    events.Recorder     events.k8s.io/v1, repeated ones as a series
    definitions         apply the CustomResourceDefinitions and wait until they are served
    types               which API serves an object: group, version, plural, scope
    errors              what the API server can answer

Below them: `transport` and `account` (the only files that import the official client, and only when one connects),
`request`, `answers` (bytes to objects, statuses to errors), `lines`, `store` (which of two states is newer),
`selector`, `jitter`.

Objects are dictionaries as JSON reads them; who needs more decodes them further up.
"""
