"""Everything but chat through the openai SDK, and its errors."""

import asyncio

import pydantic

from tests.interop.sdk.clients import Clients
from tests.interop.sdk.scenarios import headers, raised, scenario

MODEL = "gpt-4.1"
ASK = [{"role": "user", "content": "hello"}]
TEXTS = ["one text", "another, with Zürich and 東京"]
RESPONSE_TOOLS = [
    {
        "type": "function",
        "name": name,
        "description": name,
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    }
    for name in ("get_weather", "get_time")
]


class Place(pydantic.BaseModel):
    name: str
    size: float


@scenario
def completions_buffered(clients: Clients):
    return clients.openai().completions.create(model=MODEL, prompt="Once upon a time", max_tokens=50)


@scenario
def completions_several_prompts(clients: Clients):
    return clients.openai().completions.create(model=MODEL, prompt=TEXTS, n=2, max_tokens=9, echo=True, stop="\n")


@scenario
def completions_streamed(clients: Clients):
    return list(clients.openai().completions.create(model=MODEL, prompt="Once", stream=True))


@scenario
def completions_streamed_with_usage(clients: Clients):
    options = {"include_usage": True}
    found = list(clients.openai().completions.create(model=MODEL, prompt="Once", stream=True, stream_options=options))
    assert found[-1].usage is not None
    return found


@scenario
def embeddings_default_encoding(clients: Clients):
    found = clients.openai().embeddings.create(model="text-embedding-3-small", input=TEXTS)
    assert len(found.data[0].embedding) == 1536
    return found


@scenario
def embeddings_float(clients: Clients):
    client = clients.openai()
    return client.embeddings.create(model="text-embedding-3-large", input=TEXTS[0], encoding_format="float")


@scenario
def embeddings_base64(clients: Clients):
    client = clients.openai()
    found = client.embeddings.create(
        model="text-embedding-3-small", input=TEXTS, encoding_format="base64", dimensions=8
    )
    assert isinstance(found.data[0].embedding, str)
    return found


@scenario
def embeddings_of_token_numbers(clients: Clients):
    client = clients.openai()
    return client.embeddings.create(model="text-embedding-3-small", input=[[1, 2], [3]], dimensions=16)


@scenario
def embeddings_async(clients: Clients):
    async def run():
        async with clients.async_openai() as client:
            return await client.embeddings.create(model="text-embedding-3-small", input=TEXTS, dimensions=256)

    return asyncio.run(run())


@scenario
def images_generated(clients: Clients):
    found = clients.openai().images.generate(model="gpt-image-1", prompt="a sidecar", n=2)
    assert (found.data or [])[0].b64_json
    return found


@scenario
def models_listed(clients: Clients):
    return list(clients.openai().models.list())


@scenario
def model_retrieved(clients: Clients):
    return clients.openai().models.retrieve("gpt-4.1-mini")


@scenario
def model_unknown(clients: Clients):
    return raised(lambda: clients.openai().models.retrieve("missing-model"))


@scenario
def responses_buffered(clients: Clients):
    found = clients.openai().responses.create(model=MODEL, input="What is a sidecar?", instructions="Be kind.")
    assert found.output_text
    return found


@scenario
def responses_async(clients: Clients):
    async def run():
        async with clients.async_openai() as client:
            return await client.responses.create(model=MODEL, input="hello", metadata={"a": "b"})

    return asyncio.run(run())


@scenario
def responses_with_items_and_image(clients: Clients):
    parts = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "data:image/png;base64,aGVsbG8=", "detail": "auto"},
    ]
    items = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]
    return clients.openai().responses.create(model=MODEL, input=items)


@scenario
def responses_cut_short(clients: Clients):
    found = clients.openai().responses.create(model=MODEL, input="hello", max_output_tokens=4)
    assert found.status == "incomplete"
    return found


@scenario
def responses_function_calls(clients: Clients):
    ask = "get_weather and get_time please"
    found = clients.openai().responses.create(model=MODEL, input=ask, tools=RESPONSE_TOOLS)
    assert [item.type for item in found.output] == ["function_call", "function_call"]
    return found


@scenario
def responses_function_round_trip(clients: Clients):
    client = clients.openai()
    first = client.responses.create(model=MODEL, input="weather?", tools=RESPONSE_TOOLS)
    call = first.output[0]
    replay = [
        {"role": "user", "content": "weather?"},
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain ☔"},
    ]
    return [first, client.responses.create(model=MODEL, input=replay, tools=RESPONSE_TOOLS)]


@scenario
def responses_parsed(clients: Clients):
    found = clients.openai().responses.parse(model=MODEL, input="a place", text_format=Place)
    assert isinstance(found.output_parsed, Place)
    return found


@scenario
def responses_streamed(clients: Clients):
    found = list(clients.openai().responses.create(model=MODEL, input="hello", stream=True))
    assert [found[0].type, found[-1].type] == ["response.created", "response.completed"]
    assert [event.sequence_number for event in found] == list(range(len(found)))
    return found


@scenario
def responses_streamed_async(clients: Clients):
    async def run():
        async with clients.async_openai() as client:
            return [event async for event in await client.responses.create(model=MODEL, input="hello", stream=True)]

    return asyncio.run(run())


@scenario
def responses_streamed_function_calls(clients: Clients):
    client = clients.openai()
    return list(client.responses.create(model=MODEL, input="get_time", tools=RESPONSE_TOOLS, stream=True))


@scenario
def responses_streamed_reasoning(clients: Clients):
    client = clients.openai()
    reasoning = {"effort": "low", "summary": "auto"}
    return list(client.responses.create(model="o4-mini", input="think", reasoning=reasoning, stream=True))


@scenario
def responses_streamed_incomplete(clients: Clients):
    found = list(clients.openai().responses.create(model=MODEL, input="hello", max_output_tokens=4, stream=True))
    assert found[-1].type == "response.incomplete"
    return found


@scenario
def responses_streamed_failure(clients: Clients):
    found = list(clients.openai().responses.create(model="breaks-soon", input="hello", stream=True))
    assert found[-1].type == "response.failed"
    return found


@scenario
def responses_stream_helper(clients: Clients):
    with clients.openai().responses.stream(model=MODEL, input="hello") as stream:
        events = list(stream)
        return [events, stream.get_final_response()]


@scenario
def responses_stream_helper_structured(clients: Clients):
    with clients.openai().responses.stream(model=MODEL, input="a place", text_format=Place) as stream:
        return stream.get_final_response()


@scenario
def responses_raw(clients: Clients):
    found = clients.openai().responses.with_raw_response.create(model=MODEL, input="hello")
    return [found.status_code, headers(found.headers), found.content]


ERROR_MODELS = {
    "authentication": "unauthorized",
    "permission": "forbidden",
    "not_found": "missing-model",
    "conflict": "conflict",
    "unprocessable": "unprocessable",
    "rate_limit": "rate-limited",
    "internal_server": "server-error",
    "unavailable": "overloaded",
    "content_filter": "filtered",
}


def add_error(name: str, model: str) -> None:
    def run(clients: Clients):
        client = clients.openai()
        return [
            raised(lambda: client.chat.completions.create(model=model, messages=ASK)),
            raised(lambda: client.chat.completions.create(model=model, messages=ASK, stream=True)),
            raised(lambda: client.responses.create(model=model, input="hello")),
            raised(lambda: client.embeddings.create(model=model, input="hello")),
        ]

    run.__name__ = f"error_{name}"
    scenario(run)


for error_name, error_model in ERROR_MODELS.items():
    add_error(error_name, error_model)


@scenario
def error_bad_request(clients: Clients):
    client = clients.openai()
    odd = [{"role": "user", "content": [{"type": "telepathy"}]}]
    return [
        raised(lambda: client.chat.completions.create(model=MODEL, messages=[])),
        raised(lambda: client.chat.completions.create(model=MODEL, messages=odd)),
        raised(lambda: client.chat.completions.create(model=MODEL, messages=ASK, n=0)),
        raised(lambda: client.embeddings.create(model=MODEL, input="")),
        raised(lambda: client.embeddings.create(model=MODEL, input="a", dimensions=99999)),
    ]


@scenario
def error_async(clients: Clients):
    async def run():
        async with clients.async_openai() as client:
            await client.chat.completions.create(model="rate-limited", messages=ASK)

    return raised(lambda: asyncio.run(run()))


@scenario
def azure_chat(clients: Clients):
    return clients.azure().chat.completions.create(model="my-deployment", messages=ASK)


@scenario
def azure_chat_streamed(clients: Clients):
    return list(clients.azure().chat.completions.create(model="my-deployment", messages=ASK, stream=True))


@scenario
def azure_chat_async(clients: Clients):
    async def run():
        async with clients.async_azure() as client:
            stream = await client.chat.completions.create(model="my-deployment", messages=ASK, stream=True)
            return [chunk async for chunk in stream]

    return asyncio.run(run())


@scenario
def azure_embeddings(clients: Clients):
    return clients.azure().embeddings.create(model="my-embeddings", input=TEXTS, dimensions=8)


@scenario
def azure_images(clients: Clients):
    return clients.azure().images.generate(model="my-pictures", prompt="a sidecar")


@scenario
def azure_content_filter_error(clients: Clients):
    return raised(lambda: clients.azure().chat.completions.create(model="filtered", messages=ASK))


@scenario
def azure_v1_form(clients: Clients):
    client = clients.openai(base_url=f"{clients.url}/openai/v1")
    return [
        client.chat.completions.create(model="my-deployment", messages=ASK),
        client.responses.create(model="my-deployment", input="hello"),
        client.embeddings.create(model="my-embeddings", input="hello", dimensions=4),
    ]
