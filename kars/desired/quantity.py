"""Quantities of Kubernetes as numbers (k8s.io/apimachinery/pkg/api/resource)."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

# A signed decimal number and a binary suffix, a decimal suffix or an exponent.
GRAMMAR = re.compile(
    r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:(Ki|Mi|Gi|Ti|Pi|Ei)|([numkMGTPE])|[eE]([+-]?[0-9]+))?\Z"
)
BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
# The API server keeps nothing finer, and rounds up.
FINEST = 10**9
# No quantity has a larger exponent: 2^63 is what the API server clips at. It also bounds the work on an odd text.
LARGEST_EXPONENT = 30


def parse(text: str | int) -> Fraction:
    """Return a quantity's value; ValueError for a text that is none."""
    if isinstance(text, int) and not isinstance(text, bool):
        return Fraction(text)
    found = GRAMMAR.match(str(text))
    if found is None or isinstance(text, bool):
        raise ValueError(f"not a quantity: {text!r:.80}")
    number, binary, decimal, exponent = found.groups()
    value = Fraction(Decimal(number))
    if binary:
        value *= 1024 ** BINARY[binary]
    elif decimal:
        value *= Fraction(10) ** DECIMAL[decimal]
    elif exponent:
        if abs(int(exponent)) > LARGEST_EXPONENT:
            raise ValueError(f"not a quantity: {text!r:.80}")
        value *= Fraction(10) ** int(exponent)
    return value


def same(one: object, other: object) -> bool:
    """Whether two quantities are the same number as the API server keeps it; of what is none, whether it is equal."""
    if one == other:
        return True
    try:
        return rounded(parse(one)) == rounded(parse(other))  # type: ignore[arg-type]
    except ValueError:
        return False


def rounded(value: Fraction) -> Fraction:
    """Round away from zero to nanos."""
    nanos = abs(value) * FINEST
    whole = -(-nanos.numerator // nanos.denominator)
    return Fraction(whole if value >= 0 else -whole, FINEST)
