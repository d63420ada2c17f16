"""Calls that make revisions and move traffic between them: update, rollback, rollout, traffic.

As in `calls`: what is sent and how the answer is read. Sends nothing itself.
"""

from collections.abc import Mapping
from typing import Any

from .calls import Call, fresh_key, model_path, window
from .models import Comparison, RolloutState, UpdateResult, Version
from .wire import Page, page_of

STEPS = ("pause", "resume", "promote", "abort")


def update(
    model: str,
    body: Mapping[str, Any],
    if_match: int | None = None,
    idempotency_key: str | None = None,
    *,
    replace: bool = False,
) -> Call[UpdateResult]:
    """Change a model; `body` is a merge patch on its request, and `rollout` says how.

    With `replace` it is the whole request: what it does not give gets its default.
    """
    return Call(
        method="PUT",
        path=model_path(model),
        decode=UpdateResult.decode,
        query={"replace": "true"} if replace else {},
        body=body,
        idempotency_key=idempotency_key or fresh_key(),
        if_match=if_match,
    )


def rollback(
    model: str,
    target: int | str | None = None,
    rollout: Mapping[str, Any] | None = None,
    if_match: int | None = None,
    idempotency_key: str | None = None,
) -> Call[UpdateResult]:
    """Go back to a revision (a number), a version (a label), or by default the last good one."""
    body: dict[str, Any] = {}
    if target is not None:
        body["revision" if isinstance(target, int) else "version"] = target
    if rollout is not None:
        body["rollout"] = dict(rollout)
    return Call(
        method="POST",
        path=f"{model_path(model)}/rollback",
        decode=UpdateResult.decode,
        body=body,
        idempotency_key=idempotency_key or fresh_key(),
        if_match=if_match,
    )


def versions(model: str, limit: int = 20, offset: int = 0) -> Call[Page[Version]]:
    """List a model's revisions, newest first, at most 100 at a time."""
    return Call(
        method="GET",
        path=f"{model_path(model)}/versions",
        decode=page_of(("versions",), Version.decode),
        query=window(limit, offset),
    )


def diff(
    model: str, from_revision: int | None = None, to_revision: int | None = None
) -> Call[Comparison]:
    """Compare two revisions: by default the wanted one with the one before it."""
    given = {"from": from_revision, "to": to_revision}
    return Call(
        method="GET",
        path=f"{model_path(model)}/diff",
        decode=Comparison.decode,
        query={name: str(number) for name, number in given.items() if number is not None},
    )


def rollout(model: str) -> Call[RolloutState]:
    """Return a model's latest rollout, under way or ended."""
    path = f"{model_path(model)}/rollout"
    return Call(method="GET", path=path, decode=RolloutState.decode)


def steer(
    model: str, step: str, if_match: int | None = None, idempotency_key: str | None = None
) -> Call[RolloutState]:
    """Pause, resume, promote or abort the rollout under way; `step` is one of `STEPS`."""
    return Call(
        method="POST",
        path=f"{model_path(model)}/rollout/{step}",
        decode=RolloutState.decode,
        idempotency_key=idempotency_key or fresh_key(),
        if_match=if_match,
    )


def set_traffic(
    model: str,
    weights: Mapping[int, int],
    if_match: int | None = None,
    idempotency_key: str | None = None,
) -> Call[RolloutState]:
    """Divide the traffic of a trial by hand: percents by revision, which sum to 100."""
    return Call(
        method="PUT",
        path=f"{model_path(model)}/traffic",
        decode=RolloutState.decode,
        body={"weights": {str(number): weight for number, weight in weights.items()}},
        idempotency_key=idempotency_key or fresh_key(),
        if_match=if_match,
    )


def update_body(
    config: Mapping[str, Any],
    model_type: str | None = None,
    model_metadata: Mapping[str, Any] | None = None,
    rollout: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the request of an update; what is None is left as it is."""
    body = {
        "model_type": model_type,
        "deployment_config": dict(config) or None,
        "model_metadata": model_metadata and dict(model_metadata),
        "rollout": rollout and dict(rollout),
    }
    return {name: value for name, value in body.items() if value is not None}
