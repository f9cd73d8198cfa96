"""Bodies and event streams as the services send them, small enough to compare byte for byte."""

import json


def pack(value) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def chat_request(content="hi", **more) -> dict:
    return {"model": "gpt-4.1", "messages": [{"role": "user", "content": content}], **more}


def messages_request(content="hi", **more) -> dict:
    return {"model": "claude-demo", "max_tokens": 64, "messages": [{"role": "user", "content": content}], **more}


def responses_request(content="hi", **more) -> dict:
    return {"model": "gpt-4.1", "input": content, **more}


def usage(prompt=5, completion=7, **more) -> dict:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


def chat(content="hello", *, prompt=5, completion=7, **more) -> bytes:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return pack(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4.1",
            "choices": [choice],
            "usage": usage(prompt, completion),
            **more,
        }
    )


def chunk(delta=None, finish=None, **more) -> bytes:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4.1"}
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return b"data: " + pack({**base, "choices": choices, **more}) + b"\n\n"


def usage_chunk(prompt=5, completion=7) -> bytes:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4.1"}
    return b"data: " + pack({**base, "choices": [], "usage": usage(prompt, completion)}) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def chat_events(*texts: str, with_usage=True, prompt=5, completion=7) -> list[bytes]:
    """A whole chat stream; `with_usage` adds the chunk a service sends for `include_usage`."""
    more = {"usage": None} if with_usage else {}
    events = [chunk({"role": "assistant", "content": ""}, **more)]
    events += [chunk({"content": text}, **more) for text in texts]
    events.append(chunk({}, "stop", **more))
    if with_usage:
        events.append(usage_chunk(prompt, completion))
    return [*events, DONE]


def event(value: dict) -> bytes:
    return f"event: {value['type']}\n".encode() + b"data: " + pack(value) + b"\n\n"


def message(text="hello", *, prompt=5, completion=7) -> bytes:
    return pack(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-demo",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": prompt, "output_tokens": completion},
        }
    )


def message_events(*texts: str, prompt=5, completion=7) -> list[bytes]:
    """A whole Anthropic stream."""
    opened = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-demo",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": prompt, "output_tokens": 1},
    }
    return [
        event({"type": "message_start", "message": opened}),
        event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        *[
            event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
            for text in texts
        ],
        event({"type": "content_block_stop", "index": 0}),
        event(
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": completion},
            }
        ),
        event({"type": "message_stop"}),
    ]


def response_object(status: str, text="", **more) -> dict:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"id": "msg_1", "type": "message", "status": status, "role": "assistant", "content": [part]}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "gpt-4.1",
        "output": [item] if text else [],
        **more,
    }


def response_usage(prompt=5, completion=7) -> dict:
    return {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion}


def response_events(*texts: str, prompt=5, completion=7) -> list[bytes]:
    """A Responses stream, cut down to what carries meaning."""
    events = [event({"type": "response.created", "sequence_number": 0, "response": response_object("in_progress")})]
    for number, text in enumerate(texts, 1):
        where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        delta = {"type": "response.output_text.delta", "sequence_number": number, **where, "delta": text}
        events.append(event(delta))
    closed = response_object("completed", "".join(texts), usage=response_usage(prompt, completion))
    events.append(event({"type": "response.completed", "sequence_number": len(texts) + 1, "response": closed}))
    return events
