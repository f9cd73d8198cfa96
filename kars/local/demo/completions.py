"""`/v1/completions`: the older text completions, whole and streamed."""

from collections.abc import Iterator

import msgspec

from kars.local.demo import filters, shapes, voice
from kars.local.demo.chat import StreamOptions, check_n, interleave
from kars.local.demo.faults import break_event, check_model
from kars.local.demo.reply import DONE, Answer, Call, Dialect, Json, Reply, Seed, Stream, data, encode


class Body(msgspec.Struct):
    """The members of a request this server looks at."""

    model: str
    prompt: str | list[str | int | list[int]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = 16
    stop: str | list[str] | None = None
    echo: bool | None = None
    suffix: str | None = None


def handle(call: Call) -> Reply:
    """Answers one request; every prompt has `n` choices."""
    body, seed = shapes.read(call, Body)
    delay = check_model(call, body.model)
    prompts = prompts_of(body.prompt)
    sayings = [say(body, seed, prompt, variant) for prompt in prompts for variant in range(check_n(body.n))]
    usage = count_usage(prompts, sayings)
    if body.stream:
        return Stream(stream(body, seed, sayings, usage), delay=delay)
    choices = [
        choice(at, saying.text, finish(saying)) | filters.choice_results(body.model)
        for at, saying in enumerate(sayings)
    ]
    document = frame(body, seed) | {"choices": choices, "usage": usage} | filters.prompt_results(body.model)
    return Answer(200, encode(document), delay=delay)


def prompts_of(given: str | list[str | int | list[int]] | None) -> list[str]:
    """Make the prompts as texts; a list of token numbers is one prompt."""
    return shapes.texts(given) if given else [""]


def say(body: Body, seed: Seed, prompt: str, variant: int) -> voice.Saying:
    """One completion."""
    text = voice.answer(body.model, prompt, seed, variant=variant)
    saying = voice.limit(text, body.max_tokens, shapes.stops(body.stop))
    if not body.echo:
        return saying
    return voice.Saying((prompt, *saying.pieces), saying.end, saying.stopped_by)


def finish(saying: voice.Saying) -> str:
    """`finish_reason`."""
    return "length" if saying.end == "length" else "stop"


def count_usage(prompts: list[str], sayings: list[voice.Saying]) -> Json:
    """Make the `usage` object."""
    asked = sum(voice.count(prompt) for prompt in prompts)
    said = sum(len(saying.pieces) for saying in sayings)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def frame(body: Body, seed: Seed) -> Json:
    """Make the members every document of one answer shares."""
    return {"id": seed.id("cmpl-"), "object": "text_completion", "created": seed.created, "model": body.model}


def choice(at: int, text: str, reason: str | None) -> Json:
    """One choice, or a piece of it."""
    return {"text": text, "index": at, "logprobs": None, "finish_reason": reason}


def stream(body: Body, seed: Seed, sayings: list[voice.Saying], usage: Json) -> Iterator[bytes]:
    """Make the streamed answer."""
    with_usage = body.stream_options is not None and body.stream_options.include_usage is True
    extra: Json = {"usage": None} if with_usage else {}
    shared = frame(body, seed)
    broken = body.model.startswith("breaks-")
    for entry in interleave([pieces(at, saying, broken) for at, saying in enumerate(sayings)]):
        if entry is None:
            yield break_event(Dialect.OPENAI, seed)
            return
        yield data(shared | {"choices": [entry]} | extra)
    if with_usage:
        yield data(shared | {"choices": [], "usage": usage})
    yield DONE


def pieces(at: int, saying: voice.Saying, broken: bool) -> Iterator[Json | None]:
    """Make the chunks of one choice; `None` where the stream breaks."""
    half = len(saying.pieces) // 2 if broken else None
    for number, piece in enumerate(saying.pieces):
        if number == half:
            yield None
        yield choice(at, piece, None)
    yield choice(at, "", finish(saying))
