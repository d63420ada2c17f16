"""The body of an inference: its members are found as bytes, checked, and never built as values."""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from prsmd.api.request_body import content, keep_views
from prsmd.api.requests import require_json
from prsmd.api.schemas import InferBody
from prsmd.api.validation import parse
from prsmd.domain.errors import InvalidInputError
from prsmd.gateway.turns import Turns
from prsmd.protocols.json_members import Members, NotAnObjectError, NotJsonError, members

_NO_PARAMETERS = memoryview(b"{}")
_SMALL = 200  # bytes of a member that is looked at as a value, where it is wrong
_STANDS_FOR: Mapping[int, Any] = {ord("{"): {}, ord("["): [], ord('"'): "", ord("n"): None}


async def inference_members(request: web.Request, turns: Turns) -> tuple[memoryview, memoryview]:
    """Return `inputs` and `parameters` of the request's body as they stand there.

    Both end with the request. Raise InvalidInputError naming every wrong field.
    """
    require_json(request)
    try:
        found = await turns.take(members(await content(request), InferBody.model_fields.keys()))
    except NotAnObjectError:
        raise InvalidInputError.field("body", "must be a JSON object") from None
    except NotJsonError as error:
        raise InvalidInputError.field("body", f"is not valid JSON: {error}") from None
    keep_views(request, *found.found.values())
    if found.repeated is not None:
        problem = "is not valid JSON: a name stands twice in one object"
        raise InvalidInputError.field("body", problem)
    parse(InferBody, _outline(found))
    return found.found["inputs"], found.found.get("parameters", _NO_PARAMETERS)


def _outline(found: Members) -> dict[str, Any]:
    """Return what the body looks like from outside: `inputs` may be anything, so it is nothing."""
    outline: dict[str, Any] = dict.fromkeys(found.others)
    for name, view in found.found.items():
        small = len(view) <= _SMALL and name != "inputs"
        outline[name] = json.loads(bytes(view)) if small else _STANDS_FOR.get(view[0])
    return outline
