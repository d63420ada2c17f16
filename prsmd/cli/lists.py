"""Lists that a command shows whole, whatever the server gives at a time."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from prsm_sdk.calls import Call
from prsm_sdk.wire import Page

from .session import Session

T = TypeVar("T")
_AT_A_TIME = 100


def whole(session: Session, call_of: Callable[[int, int], Call[Page[T]]]) -> Page[T]:
    """Return a list with all its items; `call_of` makes the call for a limit and an offset."""
    found = session.client.send(call_of(_AT_A_TIME, 0))
    while found.has_more:
        page = session.client.send(call_of(_AT_A_TIME, len(found.items)))
        found = dataclasses.replace(
            found,
            items=(*found.items, *page.items),
            has_more=page.has_more and bool(page.items),
            raw=_together(found.raw, page.raw),
        )
    return found


def _together(first: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return two parts of a list as one answer, in the server's own words."""
    both = {
        name: [*value, *more.get(name, [])] if isinstance(value, list) else value
        for name, value in first.items()
    }
    items = max((len(value) for value in both.values() if isinstance(value, list)), default=0)
    return both | {"limit": items, "has_more": more.get("has_more", False)}
