"""Chat completions through the openai SDK."""

import asyncio
import base64
from collections.abc import Iterator

import openai
import pydantic
from openai.lib.streaming.chat import ChatCompletionStreamEvent

from tests.interop.sdk.clients import Clients
from tests.interop.sdk.scenarios import headers, raised, scenario

MODEL = "gpt-4.1"
ASK = [{"role": "user", "content": "What is a sidecar? Zürich, 東京, 👋"}]
PIXEL = base64.b64encode(b"not really a picture, but who looks").decode()


def function(name: str, **properties: str) -> dict:
    members = {key: {"type": kind} for key, kind in properties.items()}
    schema = {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": f"does {name}", "parameters": schema}}


TOOLS = [function("get_weather", city="string", days="integer"), function("get_time", zone="string")]
ASK_BOTH = [{"role": "user", "content": "Use get_weather and get_time for Zürich"}]


class City(pydantic.BaseModel):
    name: str
    people: int
    districts: list[str]


class Answer(pydantic.BaseModel):
    city: City
    sure: bool


@scenario
def chat_buffered(clients: Clients):
    return clients.openai().chat.completions.create(model=MODEL, messages=ASK)


@scenario
def chat_with_system_and_history(clients: Clients):
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Really."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "parts"}]},
    ]
    return clients.openai().chat.completions.create(model=MODEL, messages=history)


@scenario
def chat_async(clients: Clients):
    async def run():
        async with clients.async_openai() as client:
            return await client.chat.completions.create(model=MODEL, messages=ASK)

    return asyncio.run(run())


@scenario
def chat_async_many_at_once(clients: Clients):
    async def run():
        async with clients.async_openai() as client:
            asks = [
                client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": f"question {at}"}])
                for at in range(20)
            ]
            return await asyncio.gather(*asks)

    return asyncio.run(run())


@scenario
def chat_max_tokens(clients: Clients):
    found = clients.openai().chat.completions.create(model=MODEL, messages=ASK, max_tokens=5)
    assert found.choices[0].finish_reason == "length"
    return found


@scenario
def chat_max_completion_tokens(clients: Clients):
    return clients.openai().chat.completions.create(model=MODEL, messages=ASK, max_completion_tokens=7)


@scenario
def chat_stop_sequence(clients: Clients):
    return clients.openai().chat.completions.create(model=MODEL, messages=ASK, stop=["sidecar"])


@scenario
def chat_several_choices(clients: Clients):
    found = clients.openai().chat.completions.create(model=MODEL, messages=ASK, n=3)
    assert len({choice.message.content for choice in found.choices}) == 3
    return found


@scenario
def chat_logprobs(clients: Clients):
    return clients.openai().chat.completions.create(model=MODEL, messages=ASK, logprobs=True, top_logprobs=3)


@scenario
def chat_image_by_data(clients: Clients):
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}},
    ]
    found = clients.openai().chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    assert "image/png, 35 bytes" in found.choices[0].message.content
    return found


@scenario
def chat_image_of_four_megabytes(clients: Clients):
    large = base64.b64encode(b"p" * 3_000_000).decode()
    parts = [{"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{large}"}}]
    return clients.openai().chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])


@scenario
def chat_audio_and_file(clients: Clients):
    parts = [
        {"type": "text", "text": "Listen and read"},
        {"type": "input_audio", "input_audio": {"data": PIXEL, "format": "wav"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PIXEL}", "filename": "a.pdf"}},
    ]
    return clients.openai().chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])


@scenario
def chat_unknown_members(clients: Clients):
    extra = {"made_up": {"z": [1, 2.50, 1e3], "a": None}, "another": "✓"}
    return clients.openai().chat.completions.create(model=MODEL, messages=ASK, extra_body=extra)


@scenario
def chat_all_options(clients: Clients):
    return clients.openai().chat.completions.create(
        model=MODEL,
        messages=ASK,
        temperature=0.25,
        top_p=0.5,
        seed=7,
        user="somebody",
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        logit_bias={"50256": -100},
        metadata={"run": "1"},
        store=False,
        service_tier="default",
    )


@scenario
def chat_json_object(clients: Clients):
    return clients.openai().chat.completions.create(model=MODEL, messages=ASK, response_format={"type": "json_object"})


@scenario
def chat_parse_structured(clients: Clients):
    found = clients.openai().chat.completions.parse(model=MODEL, messages=ASK, response_format=Answer)
    assert isinstance(found.choices[0].message.parsed, Answer)
    return found


@scenario
def chat_tool_call(clients: Clients):
    found = clients.openai().chat.completions.create(model=MODEL, messages=ASK, tools=TOOLS)
    assert found.choices[0].finish_reason == "tool_calls"
    return found


@scenario
def chat_parallel_tool_calls(clients: Clients):
    found = clients.openai().chat.completions.create(model=MODEL, messages=ASK_BOTH, tools=TOOLS)
    assert len(found.choices[0].message.tool_calls or []) == 2
    return found


@scenario
def chat_parallel_tool_calls_off(clients: Clients):
    client = clients.openai()
    return client.chat.completions.create(model=MODEL, messages=ASK_BOTH, tools=TOOLS, parallel_tool_calls=False)


@scenario
def chat_forced_tool(clients: Clients):
    choice = {"type": "function", "function": {"name": "get_time"}}
    return clients.openai().chat.completions.create(model=MODEL, messages=ASK, tools=TOOLS, tool_choice=choice)


@scenario
def chat_tools_turned_off(clients: Clients):
    return clients.openai().chat.completions.create(model=MODEL, messages=ASK, tools=TOOLS, tool_choice="none")


@scenario
def chat_tool_round_trip(clients: Clients):
    client = clients.openai()
    first = client.chat.completions.create(model=MODEL, messages=ASK_BOTH, tools=TOOLS)
    calls = first.choices[0].message.tool_calls or []
    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny ☀"} for call in calls]
    replay = [*ASK_BOTH, first.choices[0].message.model_dump(exclude_none=True), *results]
    return [first, client.chat.completions.create(model=MODEL, messages=replay, tools=TOOLS)]


def chunks(stream: Iterator) -> list:
    return list(stream)


@scenario
def chat_streamed(clients: Clients):
    found = chunks(clients.openai().chat.completions.create(model=MODEL, messages=ASK, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in found)
    return found


@scenario
def chat_streamed_with_usage(clients: Clients):
    found = chunks(
        clients.openai().chat.completions.create(
            model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    assert found[-1].usage is not None
    assert found[-1].choices == []
    return found


@scenario
def chat_streamed_usage_declined(clients: Clients):
    found = chunks(
        clients.openai().chat.completions.create(
            model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": False}
        )
    )
    assert all(chunk.usage is None and chunk.choices for chunk in found)
    return found


@scenario
def chat_streamed_async(clients: Clients):
    async def run():
        async with clients.async_openai() as client:
            stream = await client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
            return [chunk async for chunk in stream]

    return asyncio.run(run())


@scenario
def chat_streamed_several_choices(clients: Clients):
    return chunks(clients.openai().chat.completions.create(model=MODEL, messages=ASK, stream=True, n=2))


@scenario
def chat_streamed_logprobs(clients: Clients):
    client = clients.openai()
    return chunks(client.chat.completions.create(model=MODEL, messages=ASK, stream=True, logprobs=True, top_logprobs=2))


@scenario
def chat_streamed_length(clients: Clients):
    return chunks(clients.openai().chat.completions.create(model=MODEL, messages=ASK, stream=True, max_tokens=3))


@scenario
def chat_streamed_tool_calls(clients: Clients):
    found = chunks(clients.openai().chat.completions.create(model=MODEL, messages=ASK_BOTH, tools=TOOLS, stream=True))
    pieces: dict[int, str] = {}
    for chunk in found:
        for call in chunk.choices[0].delta.tool_calls or []:
            pieces[call.index] = pieces.get(call.index, "") + ((call.function and call.function.arguments) or "")
    assert pieces[0] == '{"city": "city: Zürich, 東京 👋", "days": 7}'
    return found


def event(found: ChatCompletionStreamEvent) -> object:
    return found


@scenario
def chat_stream_helper(clients: Clients):
    with clients.openai().chat.completions.stream(model=MODEL, messages=ASK) as stream:
        events = [event(found) for found in stream]
        return [events, stream.get_final_completion()]


@scenario
def chat_stream_helper_tools(clients: Clients):
    tools = [openai.pydantic_function_tool(City, name="get_city")]
    with clients.openai().chat.completions.stream(model=MODEL, messages=ASK, tools=tools) as stream:
        events = [event(found) for found in stream]
        return [events, stream.get_final_completion()]


@scenario
def chat_stream_helper_structured(clients: Clients):
    with clients.openai().chat.completions.stream(model=MODEL, messages=ASK, response_format=Answer) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Answer)
    return final


@scenario
def chat_stream_helper_async(clients: Clients):
    async def run():
        async with (
            clients.async_openai() as client,
            client.chat.completions.stream(model=MODEL, messages=ASK) as stream,
        ):
            return [event(found) async for found in stream]

    return asyncio.run(run())


@scenario
def chat_cancelled_mid_stream_then_used_again(clients: Clients):
    client = clients.openai()
    with client.chat.completions.create(model=MODEL, messages=ASK, stream=True) as stream:
        first = [next(stream) for _ in range(3)]
    return [first, client.chat.completions.create(model=MODEL, messages=ASK)]


@scenario
def chat_cancelled_async_task(clients: Clients):
    async def run():
        async with clients.async_openai() as client:
            seen = []
            enough = asyncio.Event()

            async def read():
                async for chunk in await client.chat.completions.create(model=MODEL, messages=ASK, stream=True):
                    seen.append(chunk)
                    if len(seen) == 2:
                        enough.set()
                        await asyncio.Event().wait()

            task = asyncio.create_task(read())
            await enough.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return [seen, await client.chat.completions.create(model=MODEL, messages=ASK)]

    return asyncio.run(run())


@scenario
def chat_raw_response(clients: Clients):
    found = clients.openai().chat.completions.with_raw_response.create(model=MODEL, messages=ASK)
    assert found.headers["openai-processing-ms"]
    return [found.status_code, headers(found.headers), found.request_id, found.content, found.parse()]


@scenario
def chat_raw_streaming_response(clients: Clients):
    client = clients.openai()
    with client.chat.completions.with_streaming_response.create(model=MODEL, messages=ASK, stream=True) as found:
        return [found.status_code, headers(found.headers), list(found.iter_lines())]


@scenario
def chat_retried_until_it_works(clients: Clients):
    return clients.openai(max_retries=3).chat.completions.create(model="flaky-2", messages=ASK)


@scenario
def chat_retries_used_up(clients: Clients):
    client = clients.openai(max_retries=1)
    return raised(lambda: client.chat.completions.create(model="flaky-5", messages=ASK))


@scenario
def chat_timed_out(clients: Clients):
    client = clients.openai(timeout=0.2)
    return raised(lambda: client.chat.completions.create(model="slow-2000", messages=ASK))


@scenario
def chat_slow_but_in_time(clients: Clients):
    return clients.openai(timeout=5.0).chat.completions.create(model="slow-300", messages=ASK)


@scenario
def chat_stream_broken_half_way(clients: Clients):
    seen = []

    def read():
        for chunk in clients.openai().chat.completions.create(model="breaks-soon", messages=ASK, stream=True):
            seen.append(chunk)  # noqa: PERF402 - what came before the error counts

    return [raised(read), seen]


@scenario
def chat_azure_annotations(clients: Clients):
    return clients.openai().chat.completions.create(model="annotated-low-violence", messages=ASK)


@scenario
def chat_azure_annotations_streamed(clients: Clients):
    return chunks(clients.openai().chat.completions.create(model="annotated-medium-hate", messages=ASK, stream=True))
