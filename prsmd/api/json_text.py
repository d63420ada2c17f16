"""JSON of a request, bounded before anything is built of it: how much there is and how deep.

A megabyte of JSON can be half a million values, which take 26 times its bytes and seconds of
everybody's time; what no request needs is refused after a look at its punctuation.
"""

import json
import math
from typing import Any, NoReturn

from prsmd.domain.errors import InvalidInputError

MOST_VALUES = 10_000
DEEPEST = 32
_MOST_QUOTES = 4 * MOST_VALUES  # two around each value, two around its name
_LONGEST_NUMBER = 64  # characters: to read one of hundreds of digits takes up to 0.1 ms
_OPENING, _BRACKETS = b"[{", b"[]{}"
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(_BRACKETS)))


def parse_json(text: bytes | bytearray) -> Any:
    """Return the value of a JSON text. InvalidInputError where it is none, or too much."""
    try:
        _refuse_excess(text)
        body = json.loads(
            text.decode(),
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
        if b"\\u" in text:
            _refuse_half_characters(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError.field("body", _why(error)) from None
    return body


class _NotJsonError(ValueError):
    """JSON's grammar may allow it, but two readers would read it differently, or not at all."""


class _ExcessError(ValueError):
    """It may be JSON, and is more than any request needs."""


def _refuse_excess(text: bytes | bytearray) -> None:
    """Refuse too many values, or too deep ones, at the cost of a few passes over the bytes.

    What is no JSON is counted somehow; it is parsed no further than it was counted rightly.
    """
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    if text.count(b'"') > _MOST_QUOTES:
        raise _ExcessError(f"has more than {MOST_VALUES} values")
    outside = b"".join(text.split(b'"')[::2])
    if outside.count(b",") + outside.count(b"[") + outside.count(b"{") > MOST_VALUES:
        raise _ExcessError(f"has more than {MOST_VALUES} values")
    depth = 0
    for bracket in outside.translate(None, _NO_BRACKETS):
        depth += 1 if bracket in _OPENING else -1
        if depth > DEEPEST:
            raise _ExcessError(f"is nested more than {DEEPEST} deep")
        if depth < 0:
            raise _NotJsonError("a bracket closes what none opened")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotJsonError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise _NotJsonError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    _refuse_long(text)
    value = float(text)
    if math.isinf(value):
        raise _NotJsonError("a number is out of range")
    return value


def _whole(text: str) -> int:
    _refuse_long(text)
    return int(text)


def _refuse_long(number: str) -> None:
    if len(number) > _LONGEST_NUMBER:
        raise _ExcessError(f"has a number of more than {_LONGEST_NUMBER} characters")


def _refuse_half_characters(body: Any) -> None:
    """Refuse lone surrogates, which an escape can smuggle in and nothing can store."""
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _NotJsonError("an escape is half a character") from None


def _why(error: Exception) -> str:
    if isinstance(error, _ExcessError):
        return str(error)
    if isinstance(error, UnicodeDecodeError):
        return "is not valid JSON: it is not UTF-8"
    if isinstance(error, RecursionError):
        return "is not valid JSON: it is nested too deeply"
    return f"is not valid JSON: {error}"
