"""Patterns for who signed and for which repository: exact, glob, or `re:` and a regular expression.

A pattern is always about the whole text. A glob's `*` and `?` stop at `/` and `@`, because what follows an `@` in a
workflow's URL is a branch's name, and whoever may push a branch chooses it: `*` would otherwise reach over
`@refs/heads/anything` to a later `@refs/heads/main`. Only a `*` that ends a pattern takes everything.

Regular expressions run in Rust's engine (pydantic-core's), which is linear in the text: no look-around, no references.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

# A workflow's URL with a branch takes some 200 characters.
PATTERN_LENGTH = 512
# A certificate's subject: what Fulcio takes from a token, with room.
SUBJECT_LENGTH = 2048
REGEX = "re:"
STOPS = frozenset("/@")
PRINTABLE = re.compile(r"[!-~]+\Z")


def about_urls(pattern: str) -> bool:
    """Whether a pattern is about URLs (it has `://`); otherwise it is about e-mail addresses."""
    return "://" in pattern.replace("\\", "")


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern is about all of a text."""
    return len(text) <= SUBJECT_LENGTH and compiled(pattern)(text)


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Callable[[str], bool]:
    """Turn a pattern into a test; `ValueError` says what is wrong with it."""
    if len(pattern) > PATTERN_LENGTH:
        raise ValueError(f"{len(pattern)} characters; at most {PATTERN_LENGTH}")
    if pattern.startswith(REGEX):
        return regular(pattern.removeprefix(REGEX))
    if not PRINTABLE.match(pattern):
        raise ValueError("a space or a character that is not printable ASCII")
    if "*" in pattern or "?" in pattern:
        return linear(re.sub(r"\*+", "*", pattern))
    return pattern.__eq__


def linear(pattern: str) -> Callable[[str], bool]:
    """Turn a glob into a test that looks at each pair of characters of pattern and text at most once."""

    def test(text: str) -> bool:
        places = {0}  # how much of the pattern the text so far can have matched
        for char in text:
            places = {after for place in stars(pattern, places) for after in step(pattern, place, char)}
            if not places:
                return False
        return len(pattern) in stars(pattern, places)

    return test


def stars(pattern: str, places: set[int]) -> set[int]:
    """Add the places behind a `*`, which may stand for nothing."""
    return places | {place + 1 for place in places if pattern[place : place + 1] == "*"}


def step(pattern: str, place: int, char: str) -> tuple[int, ...]:
    """Return where a character leads from a place of the pattern."""
    if place == len(pattern):
        return ()
    wanted = pattern[place]
    if wanted == "*":
        return (place,) if place == len(pattern) - 1 or char not in STOPS else ()
    if wanted == "?":
        return (place + 1,) if char not in STOPS else ()
    return (place + 1,) if wanted == char else ()


def regular(expression: str) -> Callable[[str], bool]:
    """Compile a regular expression for the linear engine, anchored at both ends."""
    try:
        from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema
    except ImportError:
        raise ValueError("regular expressions need the package's extra `signatures`") from None

    def make(pattern: str) -> SchemaValidator:
        return SchemaValidator(core_schema.str_schema(strict=True, pattern=pattern, regex_engine="rust-regex"))

    try:
        make(expression)  # by itself first, so that no parenthesis of it can close the group around it
        validator = make(rf"\A(?:{expression})\z")
    except SchemaError:
        raise ValueError("not a regular expression of RE2's kind (no look-around, no references)") from None

    def test(text: str) -> bool:
        try:
            validator.validate_python(text)
        except ValidationError:
            return False
        return True

    return test
