"""Messages through the anthropic SDK."""

import asyncio
import base64

from tests.interop.sdk.clients import Clients
from tests.interop.sdk.scenarios import headers, raised, scenario

MODEL = "claude-demo"
ASK = [{"role": "user", "content": "What is a sidecar? Zürich, 東京, 👋"}]
ASK_BOTH = [{"role": "user", "content": "Use get_weather and get_time for Zürich"}]
BASE = {"model": MODEL, "max_tokens": 200, "messages": ASK}


def tool(name: str, **properties: str) -> dict:
    members = {key: {"type": kind} for key, kind in properties.items()}
    return {"name": name, "description": name, "input_schema": {"type": "object", "properties": members}}


TOOLS = [tool("get_weather", city="string", days="integer"), tool("get_time", zone="string")]


@scenario
def messages_buffered(clients: Clients):
    return clients.anthropic().messages.create(**BASE)


@scenario
def messages_async(clients: Clients):
    async def run():
        async with clients.async_anthropic() as client:
            return await client.messages.create(**BASE)

    return asyncio.run(run())


@scenario
def messages_with_system_text(clients: Clients):
    return clients.anthropic().messages.create(**BASE, system="Be kind.", extra_body={"temperature": 0.5, "top_k": 3})


@scenario
def messages_with_cached_system(clients: Clients):
    system = [
        {"type": "text", "text": "A long text.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Another.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]
    found = clients.anthropic().messages.create(**BASE, system=system)
    assert found.usage.cache_creation_input_tokens
    return found


@scenario
def messages_max_tokens(clients: Clients):
    found = clients.anthropic().messages.create(**{**BASE, "max_tokens": 3})
    assert found.stop_reason == "max_tokens"
    return found


@scenario
def messages_stop_sequence(clients: Clients):
    found = clients.anthropic().messages.create(**BASE, stop_sequences=["sidecar"])
    assert found.stop_sequence == "sidecar"
    return found


@scenario
def messages_image(clients: Clients):
    data = base64.b64encode(b"p" * 1000).decode()
    blocks = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
        {"type": "text", "text": "What is it?"},
    ]
    return clients.anthropic().messages.create(**{**BASE, "messages": [{"role": "user", "content": blocks}]})


@scenario
def messages_thinking(clients: Clients):
    thinking = {"type": "enabled", "budget_tokens": 1024}
    found = clients.anthropic().messages.create(**{**BASE, "max_tokens": 2048}, thinking=thinking)
    assert found.content[0].type == "thinking"
    return found


@scenario
def messages_tool_use(clients: Clients):
    found = clients.anthropic().messages.create(**BASE, tools=TOOLS)
    assert found.stop_reason == "tool_use"
    return found


@scenario
def messages_parallel_tool_use(clients: Clients):
    found = clients.anthropic().messages.create(**{**BASE, "messages": ASK_BOTH}, tools=TOOLS)
    assert len(found.content) == 2
    return found


@scenario
def messages_forced_tool(clients: Clients):
    choice = {"type": "tool", "name": "get_time"}
    return clients.anthropic().messages.create(**BASE, tools=TOOLS, tool_choice=choice)


@scenario
def messages_tool_round_trip(clients: Clients):
    client = clients.anthropic()
    first = client.messages.create(**BASE, tools=TOOLS)
    use = first.content[0]
    replay = [
        *ASK,
        {"role": "assistant", "content": [use.model_dump(exclude_none=True)]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny ☀"}]},
    ]
    return [first, client.messages.create(**{**BASE, "messages": replay}, tools=TOOLS)]


@scenario
def messages_streamed(clients: Clients):
    found = list(clients.anthropic().messages.create(**BASE, stream=True))
    assert [found[0].type, found[-1].type] == ["message_start", "message_stop"]
    return found


@scenario
def messages_streamed_async(clients: Clients):
    async def run():
        async with clients.async_anthropic() as client:
            return [event async for event in await client.messages.create(**BASE, stream=True)]

    return asyncio.run(run())


@scenario
def messages_streamed_tool_use(clients: Clients):
    return list(clients.anthropic().messages.create(**{**BASE, "messages": ASK_BOTH}, tools=TOOLS, stream=True))


@scenario
def messages_streamed_thinking(clients: Clients):
    thinking = {"type": "enabled", "budget_tokens": 1024}
    return list(clients.anthropic().messages.create(**{**BASE, "max_tokens": 2048}, thinking=thinking, stream=True))


@scenario
def messages_stream_helper(clients: Clients):
    with clients.anthropic().messages.stream(**BASE) as stream:
        events = list(stream)
        return [events, stream.get_final_message(), stream.request_id]


@scenario
def messages_stream_helper_text(clients: Clients):
    with clients.anthropic().messages.stream(**BASE) as stream:
        return list(stream.text_stream)


@scenario
def messages_stream_helper_tools(clients: Clients):
    with clients.anthropic().messages.stream(**{**BASE, "messages": ASK_BOTH}, tools=TOOLS) as stream:
        final = stream.get_final_message()
    assert final.content[0].input["city"] == "city: Zürich, 東京 👋"
    return final


@scenario
def messages_stream_helper_async(clients: Clients):
    async def run():
        async with clients.async_anthropic() as client, client.messages.stream(**BASE) as stream:
            return [await stream.get_final_message(), await stream.get_final_text()]

    return asyncio.run(run())


@scenario
def messages_cancelled_mid_stream_then_used_again(clients: Clients):
    client = clients.anthropic()
    with client.messages.create(**BASE, stream=True) as stream:
        first = [next(stream) for _ in range(4)]
    return [first, client.messages.create(**BASE)]


@scenario
def messages_counted(clients: Clients):
    client = clients.anthropic()
    return [
        client.messages.count_tokens(model=MODEL, messages=ASK),
        client.messages.count_tokens(model=MODEL, messages=ASK, system="Be kind.", tools=TOOLS),
    ]


@scenario
def messages_beta_headers(clients: Clients):
    client = clients.anthropic(default_headers={"anthropic-beta": "output-128k-2025-02-19,another-2025-01-01"})
    return client.messages.create(**BASE)


@scenario
def messages_unknown_members(clients: Clients):
    return clients.anthropic().messages.create(**BASE, extra_body={"made_up": {"z": 1.50, "a": None}})


@scenario
def messages_raw_response(clients: Clients):
    found = clients.anthropic().messages.with_raw_response.create(**BASE)
    assert found.headers["request-id"]
    return [found.status_code, headers(found.headers), found.text()]


@scenario
def messages_stream_broken_half_way(clients: Clients):
    seen = []

    def read():
        for event in clients.anthropic().messages.create(**{**BASE, "model": "breaks-soon"}, stream=True):
            seen.append(event)  # noqa: PERF402 - what came before the error counts

    return [raised(read), seen]


@scenario
def messages_retried_until_it_works(clients: Clients):
    return clients.anthropic(max_retries=3).messages.create(**{**BASE, "model": "flaky-2"})


@scenario
def messages_timed_out(clients: Clients):
    client = clients.anthropic(timeout=0.2)
    return raised(lambda: client.messages.create(**{**BASE, "model": "slow-2000"}))


@scenario
def messages_models_listed(clients: Clients):
    return list(clients.anthropic().models.list())


@scenario
def messages_model_retrieved(clients: Clients):
    return clients.anthropic().models.retrieve("claude-demo")


@scenario
def messages_foundry_path(clients: Clients):
    return clients.anthropic(base_url=f"{clients.url}/anthropic").messages.create(**BASE)


ERROR_MODELS = {
    "authentication": "unauthorized",
    "permission": "forbidden",
    "not_found": "missing-model",
    "conflict": "conflict",
    "unprocessable": "unprocessable",
    "rate_limit": "rate-limited",
    "internal_server": "server-error",
    "overloaded": "overloaded",
}


def add_error(name: str, model: str) -> None:
    def run(clients: Clients):
        client = clients.anthropic()
        ask = {**BASE, "model": model}
        return [
            raised(lambda: client.messages.create(**ask)),
            raised(lambda: client.messages.create(**ask, stream=True)),
            raised(lambda: client.messages.count_tokens(model=model, messages=ASK)),
        ]

    run.__name__ = f"messages_error_{name}"
    scenario(run)


for error_name, error_model in ERROR_MODELS.items():
    add_error(error_name, error_model)


@scenario
def messages_error_bad_request(clients: Clients):
    client = clients.anthropic()
    odd = [{"role": "robot", "content": "hi"}]
    return [
        raised(lambda: client.messages.create(**{**BASE, "messages": []})),
        raised(lambda: client.messages.create(**{**BASE, "messages": odd})),
    ]
