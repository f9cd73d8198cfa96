"""The only room that knows the Kubernetes API: a client of raw objects, informers, a lease, events.

    client.Client       get, list, apply, patch, create, delete, watch; one connection pool, typed errors
    informer.Informer   list and watch with resume, bookmarks and a watchdog; holds what it saw
    lease.Lease         leader election over coordination.k8s.io/v1
    events.Recorder     events.k8s.io/v1, repeated ones as a series
    types               which API serves an object: group, version, plural, scope
    errors              what the API server can answer

Objects are dictionaries as JSON reads them; who needs more decodes them further up.
"""
