"""A model server that needs no model: `python -m kars.local.demo`.

It speaks the OpenAI and Anthropic wire shapes well enough for their SDKs, takes any credential or none,
and answers the same bytes to the same request, so it serves people who want to see kars work and tests
that compare a call through the router with a direct one. It keeps nothing of what it is sent.

What a request can ask for by its model's name is listed in `faults`; what by its text, in `voice`.
"""
