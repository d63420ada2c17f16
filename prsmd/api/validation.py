"""Whether a parsed body fits its schema, told field by field: the first problems, and no more work.

An error quotes little of what was sent, and nothing that may be a secret.
"""

import difflib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

from annotated_types import MaxLen
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from prsmd.api import patterns
from prsmd.domain.errors import InvalidInputError

_SHOWN = 200  # characters of an offending value that an error may quote
_LARGEST_SHOWN = 2**63
_MOST_PROBLEMS = 20  # of one request that are named
_UNKNOWN, _TOO_LONG = "extra_forbidden", "too_long"
_PRIVATE = {
    "environment",
    "secrets",
    "command",
    "args",
    "password",
    "value",
    "value_base64",
}  # never quoted: they can hold secrets
_PLANNED = {
    "volumes": "named volumes are not part of this version",
    "priority": "priorities are not part of this version",
}

Parsed = TypeVar("Parsed", bound=BaseModel)


def parse(schema: type[Parsed], body: Any) -> Parsed:
    """Return the body as `schema`. Raise InvalidInputError with its problems, by field.

    Twenty of them are named, and the search ends when there are more, however many there would be.
    """
    if not isinstance(body, dict):
        raise InvalidInputError.field("body", "must be a JSON object")
    problems = [*itertools.islice(_excess(schema, body, ()), _MOST_PROBLEMS + 1)]
    if any(problem["type"] == _TOO_LONG for problem in problems) or len(problems) > _MOST_PROBLEMS:
        raise _refusal(schema, problems)
    try:
        return schema.model_validate(body)
    except ValidationError as error:
        raise _refusal(schema, error.errors(include_url=False)) from None


def _refusal(schema: type[BaseModel], found: Sequence[Any]) -> InvalidInputError:
    problems = [_problem(schema, item) for item in found[:_MOST_PROBLEMS]]
    summary = "; ".join(f"{p['field']}: {p['error']}" for p in problems[:3])
    return InvalidInputError(summary, problems)


def _excess(schema: type[BaseModel], body: Any, place: tuple[str | int, ...]) -> Iterator[Any]:
    """Yield, one by one, what would make pydantic build errors without bound.

    That is unknown fields, and lists that are longer than they may be.
    """
    if not isinstance(body, dict):
        return
    for name in body:
        if name not in schema.model_fields:
            yield {"loc": (*place, name), "type": _UNKNOWN, "msg": "", "input": None}
    for name, field in schema.model_fields.items():
        value, inside = body.get(name), _schema_of(field.annotation)
        if isinstance(value, list):
            most = _most_items(field)
            if most is not None and len(value) > most:
                told = f"must have at most {most} items"
                yield {"loc": (*place, name), "type": _TOO_LONG, "msg": told, "input": value}
            elif inside is not None:
                for at, item in enumerate(value):
                    yield from _excess(inside, item, (*place, name, at))
        elif inside is not None:
            yield from _excess(inside, value, (*place, name))


def _schema_of(annotation: Any) -> type[BaseModel] | None:
    """Return the schema of what is inside a field, be it alone, one of several, or a list's."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for kind in get_args(annotation) if (found := _schema_of(kind))), None)


def _most_items(field: FieldInfo) -> int | None:
    """Return how many items a field that is a list may have; None: it does not say."""
    found = [*field.metadata]
    for kind in (field.annotation, *get_args(field.annotation)):
        for mark in getattr(kind, "__metadata__", ()):
            found += mark.metadata if isinstance(mark, FieldInfo) else [mark]
    return next((mark.max_length for mark in found if isinstance(mark, MaxLen)), None)


def _problem(schema: type[BaseModel], item: Any) -> dict[str, Any]:
    path = [str(part)[:_SHOWN] for part in item["loc"]]
    message = item["msg"].removeprefix("Value error, ")
    quoted = None if _PRIVATE.intersection(path) else _shown(item["input"])
    if item["type"] == _UNKNOWN:
        message = _PLANNED.get(path[-1]) or "unknown field" + _nearest(schema, path)
        quoted = None
    elif item["type"] == "missing":
        message, quoted = "is required", None
    elif item["type"] == "string_pattern_mismatch":
        message = patterns.IN_WORDS.get(item["ctx"]["pattern"], message)
    return {"field": _dotted(item["loc"]) or "body", "error": message, "provided_value": quoted}


def _dotted(location: Sequence[str | int]) -> str:
    """Return a place in a body as people write it: `rollout.canary.steps[1]`."""
    parts = (f"[{p}]" if isinstance(p, int) else f".{p[:_SHOWN]}" for p in location)
    return "".join(parts).removeprefix(".")


def _shown(value: Any) -> Any:
    """Return what an error may quote of a value: no whole structure, nothing long, no key."""
    if isinstance(value, dict | list):
        return f"<{type(value).__name__} of {len(value)}>"
    if isinstance(value, str) and len(value) > _SHOWN:
        return f"<string of {len(value)} characters>"
    if isinstance(value, str) and "prsm_" in value:
        return "<an API key>"
    if isinstance(value, int) and abs(value) > _LARGEST_SHOWN:
        return "<a very large number>"
    return value


def _nearest(schema: type[BaseModel], path: list[str]) -> str:
    for part in path[:-1]:
        if part.isdigit() and part not in schema.model_fields:
            continue  # which item of a list
        inner = schema.model_fields[part].annotation if part in schema.model_fields else None
        found = _schema_of(inner)
        if found is None:
            return ""
        schema = found
    return nearest_words(path[-1], list(schema.model_fields))


def nearest_words(name: str, known: Sequence[str]) -> str:
    """Return what is told of a name that is not known: the nearest one, or all of them."""
    near = difflib.get_close_matches(name[:_SHOWN], known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
