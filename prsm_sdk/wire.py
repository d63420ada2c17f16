"""How an answer's JSON becomes a frozen value: unknown fields are kept aside, missing ones default.

So a program goes on working with a newer server, and reaches its new fields through `raw`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Self, TypeVar

from .errors import UnexpectedAnswerError

T = TypeVar("T")
_KIND = "wire"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """Base of every value that comes from the server. `raw` is the JSON object as received."""

    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def decode(cls, data: object) -> Self:
        """Return the value of a JSON object.

        Raises:
            UnexpectedAnswerError: It is no object, or lacks a field that names the thing.
        """
        if not isinstance(data, Mapping):
            raise UnexpectedAnswerError(f"the server sent no {cls.__name__} but {_kind_of(data)}")
        known: dict[str, Any] = {"raw": data}
        for field in dataclasses.fields(cls):
            given = data.get(field.name)
            if field.name != "raw" and given is not None:
                known[field.name] = field.metadata.get(_KIND, _as_is)(given)
        try:
            return cls(**known)
        except TypeError as error:
            raise UnexpectedAnswerError(f"the server's {cls.__name__} is incomplete") from error


def one(kind: type[Wire]) -> Any:
    """Declare a field that holds a nested object; None when the server sends none."""
    return dataclasses.field(default=None, metadata={_KIND: kind.decode})


def many(kind: type[Wire]) -> Any:
    """Declare a field that holds a list of objects; empty when the server sends none."""

    def decode(data: object) -> tuple[Wire, ...]:
        return tuple(kind.decode(item) for item in data) if isinstance(data, list) else ()

    return dataclasses.field(default=(), metadata={_KIND: decode})


def mapping(kind: type[Wire]) -> Any:
    """Declare a field that holds objects by name; empty when the server sends none."""

    def decode(data: object) -> dict[str, Wire]:
        if not isinstance(data, Mapping):
            return {}
        return {str(name): kind.decode(item) for name, item in data.items()}

    return dataclasses.field(default_factory=dict, metadata={_KIND: decode})


def strings() -> Any:
    """Declare a field that holds a list of plain values; empty when the server sends none."""

    def decode(data: object) -> tuple[Any, ...]:
        return tuple(data) if isinstance(data, list) else ()

    return dataclasses.field(default=(), metadata={_KIND: decode})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page of a list. `total` counts what there is beyond this page too."""

    items: tuple[T, ...]
    total: int
    limit: int
    offset: int
    has_more: bool
    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def page_of(names: tuple[str, ...], decode: Callable[[object], T]) -> Callable[[object], Page[T]]:
    """Return the decoder of a list answer whose items stand under the first present of `names`."""

    def decode_page(data: object) -> Page[T]:
        name = next((n for n in names if isinstance(data, Mapping) and n in data), None)
        if not isinstance(data, Mapping) or name is None or not isinstance(data[name], list):
            raise UnexpectedAnswerError(f"the server sent no list of {names[0]}")
        items = tuple(decode(item) for item in data[name])
        return Page(
            items=items,
            total=data.get("total", len(items)),
            limit=data.get("limit", len(items)),
            offset=data.get("offset", 0),
            has_more=bool(data.get("has_more", False)),
            raw=data,
        )

    return decode_page


def _as_is(value: T) -> T:
    return value


def _kind_of(data: object) -> str:
    return "nothing" if data is None else type(data).__name__
