"""Whether two revisions' answers to the same request say the same, as JSON values."""

import math
from collections.abc import Iterator
from typing import Any

RELATIVE = 1e-6
ABSOLUTE = 1e-9  # what rounding leaves of a zero has no relative size


def compare(one: Any, other: Any) -> Iterator[bool]:
    """Yield, part by part, whether two JSON values are alike; the first False is the last.

    Numbers are alike within a millionth of the larger. It goes in parts, and is not recursive, as
    answers may be large and deep: whoever asks decides how much of it to do at a time.
    """
    pairs: list[tuple[Any, Any]] = [(one, other)]
    while pairs:
        one, other = pairs.pop()
        inside = _inside(one, other)
        if inside is None:
            yield False
            return
        pairs.extend(inside)
        yield True


def _inside(one: Any, other: Any) -> Iterator[tuple[Any, Any]] | tuple[()] | None:
    """Return what has to be alike inside two values that are alike from outside; None if not."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return None
        return ((value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return zip(one, other, strict=True) if len(one) == len(other) else None
    return () if _same(one, other) else None


def _same(one: Any, other: Any) -> bool:
    if _is_number(one) and _is_number(other):
        try:
            return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
        except OverflowError:  # integers beyond what a float holds
            return bool(one == other)
    return type(one) is type(other) and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
