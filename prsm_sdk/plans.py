"""Dry runs: any call that changes a model, asked what it would do instead of doing it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from .calls import Call
from .models import FieldChange
from .wire import Wire, many, one, strings

_value = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)


@_value
class PlanStep(Wire):
    """One thing that would happen, in its turn.

    `kind` is prepare, launch, ready, drain, stop, fail, scale, traffic, promoted, rolled_out or
    rolled_back. `replica_id` names a replica that is there already.
    """

    kind: str = ""
    reason: str = ""
    revision: int | None = None
    slot: int | None = None
    replica_id: str | None = None
    node: str | None = None
    gpu_uuids: tuple[str, ...] = strings()


@_value
class PlanHold(Wire):
    """A slot that would stay empty, and why: `details` has a line for each node limit and GPU."""

    revision: int = 0
    slot: int = 0
    kind: str = ""
    reason: str = ""
    details: tuple[str, ...] = strings()


@_value
class PlanImage(Wire):
    """What the image's name means: its digest where that can be told, and whether it is here."""

    reference: str = ""
    digest: str | None = None
    here: bool = False


@_value
class PlanCourse(Wire):
    """How it would go. `strategy` is what it amounts to, in words.

    `lowest_ready` is the lowest number of replicas that serve on the way. `waits_for` is what its
    rollout would wait for at the end; `complete` is False where the steps go on beyond those shown.
    """

    strategy: str = ""
    steps: tuple[PlanStep, ...] = many(PlanStep)
    holds: tuple[PlanHold, ...] = many(PlanHold)
    waits_for: str = ""
    lowest_ready: int = 0
    reaches_goal: bool = False
    complete: bool = True


@_value
class Plan(Wire):
    """What a request would do: nothing has been done.

    `revision` would be the wanted one; `previous_revision` is it now, None for a new model.
    `unchanged`: the request asks for what is wanted already.
    """

    action: str
    model_id: str = ""
    deployment_id: str | None = None
    revision: int = 0
    previous_revision: int | None = None
    version: str = ""
    unchanged: bool = False
    in_place: bool = False
    changes: tuple[FieldChange, ...] = many(FieldChange)
    message: str = ""
    image: PlanImage | None = one(PlanImage)
    plan: PlanCourse = dataclasses.field(
        default_factory=PlanCourse, metadata={"wire": PlanCourse.decode}
    )


def dry(call: Call[Any]) -> Call[Plan]:
    """Return the call that asks what `call` would do."""
    query: Mapping[str, str] = {**call.query, "dry_run": "true"}
    return Call(
        method=call.method,
        path=call.path,
        decode=Plan.decode,
        query=query,
        body=call.body,
        timeout=call.timeout,
        if_match=call.if_match,
    )
