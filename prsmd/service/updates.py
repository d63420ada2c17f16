"""What an update or a rollback comes to, decided from values before anything is written."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prsmd.domain.body import body_of, differences, patched
from prsmd.domain.deployment import Revision
from prsmd.domain.errors import ConflictError, InvalidInputError, NotFoundError
from prsmd.domain.rollout import Rollout, RolloutOptions, RolloutPhase
from prsmd.domain.spec import Spec
from prsmd.service import labels
from prsmd.service.precondition import Expected
from prsmd.service.succession import Beginning, Situation, Succession, ended, succeed
from prsmd.store.specs import spec_hash

_DEFAULT = RolloutOptions()
_SHOWN = 20  # revisions that a refusal names


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRequest:
    """A merge patch on the wanted revision's body, and how to roll out what comes of it.

    `read` returns the spec that a whole body asks for, or raises InvalidInputError. With `whole`
    the patch lies over nothing: what it does not give gets its default, but for the version label;
    and an image of the same name is the same image.
    """

    patch: Mapping[str, Any]
    read: Callable[[Mapping[str, Any]], Spec]
    whole: bool = False
    options: RolloutOptions = _DEFAULT
    expected: Expected = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRequest:
    """Which revision's content is wanted again: by number, by label, or the last good one's."""

    revision: int | None = None
    version: str | None = None
    options: RolloutOptions = _DEFAULT
    expected: Expected = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Abortion:
    """The rollout under way is ended: what it came from, `stable`, was never given up."""

    before: Rollout
    after: Rollout
    stable: Revision


def propose_update(
    situation: Situation, request: UpdateRequest, beginning: Beginning
) -> Succession | None:
    """Return what an update comes to; None: it asks for what is wanted already.

    An image that is given is resolved anew, even under the same name. A change of the container
    without a label of its own gets the next free one.

    Raises:
        InvalidInputError: the patched body is wrong.
        ConflictError: its label names another container.
    """
    current = situation.current
    spec = _patched_spec(situation, request)
    resolved = current.image_digest is not None
    given = _gives(request.patch, "deployment_config", "container_image") and not request.whole
    renewed = resolved and given
    if spec == current.spec and (not renewed or "@sha256:" in spec.image):
        return None
    digest = None if renewed or spec.image != current.spec.image else current.image_digest
    draft = _draft(situation, spec, digest, beginning)
    labelled = _gives(request.patch, "model_metadata", "version")
    if labelled or spec.metadata.version != current.spec.metadata.version:
        labels.refuse_reused(draft, situation.history)
    elif not succeed(situation, draft, beginning).in_place:
        draft = dataclasses.replace(draft, spec=_relabelled(spec, situation))
    succession = succeed(situation, _finished(draft, current), beginning)
    return dataclasses.replace(succession, named_here=draft.spec is not spec)


def propose_rollback(
    situation: Situation, request: RollbackRequest, beginning: Beginning
) -> Succession | Abortion | None:
    """Return what a rollback comes to; None: its goal is what is wanted already.

    Raises:
        NotFoundError: there is no such revision; those that there are, are named.
        ConflictError: none is named, and none but the wanted one was ever good.
    """
    goal, current, under_way = goal_of(situation, request), situation.current, situation.rollout
    if under_way is not None and under_way.from_revision == goal.number:
        why = f"a rollback to revision {goal.number} was asked for"
        after = ended(under_way, RolloutPhase.ABORTED, why, beginning.at)
        return Abortion(before=under_way, after=after, stable=goal)
    if (goal.spec, goal.image_digest) == (current.spec, current.image_digest):
        return None
    draft = _draft(situation, goal.spec, goal.image_digest, beginning)
    return succeed(situation, _finished(draft, current), beginning)


def goal_of(situation: Situation, request: RollbackRequest) -> Revision:
    """Return the revision that a rollback goes back to; see `propose_rollback` for the errors."""
    history = situation.history
    if request.revision is not None:
        return numbered(history, request.revision, situation.deployment.model_id)
    if request.version is not None:
        found = [one for one in history if one.spec.metadata.version == request.version]
        if not found:
            raise _no_such(history, f"version {request.version}", situation.deployment.model_id)
        return found[-1]
    if situation.rollout is not None:
        number = situation.rollout.from_revision
        return numbered(history, number, situation.deployment.model_id)
    good = [one for one in history if one.good_at is not None]
    earlier = [one for one in good if one.number != situation.current.number]
    if not earlier:
        raise _nothing_good(situation)
    return earlier[-1]


def numbered(history: Sequence[Revision], number: int, model_id: str) -> Revision:
    """Return one revision. NotFoundError for one that is not there, naming those that are."""
    found = next((one for one in history if one.number == number), None)
    if found is None:
        raise _no_such(history, f"revision {number}", model_id)
    return found


def _patched_spec(situation: Situation, request: UpdateRequest) -> Spec:
    name = situation.deployment.model_name
    version = situation.current.spec.metadata.version
    before: Mapping[str, Any] = {"model_metadata": {"version": version}}
    if not request.whole:
        before = body_of(situation.current.spec)
    body = patched({"model_name": name, **before}, request.patch)
    if body.get("model_name", name) != name:
        raise InvalidInputError.field(
            "model_name", f"a model keeps its name, {name}; deploy another", body["model_name"]
        )
    return request.read(body)


def _gives(patch: Mapping[str, Any], section: str, field: str) -> bool:
    inner = patch.get(section)
    return isinstance(inner, Mapping) and field in inner


def _draft(situation: Situation, spec: Spec, digest: str | None, beginning: Beginning) -> Revision:
    return Revision(
        deployment_id=situation.deployment.id,
        number=situation.next_number,
        spec=spec,
        spec_hash=spec_hash(spec),
        created_at=beginning.at,
        created_by=beginning.by,
        image_digest=digest,
    )


def _relabelled(spec: Spec, situation: Situation) -> Spec:
    taken = {one.spec.metadata.version for one in situation.history}
    version = labels.next_free(spec.metadata.version, taken)
    return dataclasses.replace(spec, metadata=dataclasses.replace(spec.metadata, version=version))


def _finished(draft: Revision, current: Revision) -> Revision:
    diff = differences(current.spec, draft.spec)
    return dataclasses.replace(draft, spec_hash=spec_hash(draft.spec), diff=diff)


def _nothing_good(situation: Situation) -> ConflictError:
    model, current = situation.deployment.model_id, situation.current.number
    why = (
        f"revision {current} is the only one"
        if len(situation.history) == 1
        else f"none but revision {current}, which is wanted now, was ever fully ready"
        if situation.current.good_at is not None
        else "none was ever fully ready"
    )
    return ConflictError(
        f"There is nothing good to go back to: of {model}, {why}. Name a revision to try one.",
        model_id=model,
        current_revision=current,
    )


def _no_such(history: Sequence[Revision], what: str, model_id: str) -> NotFoundError:
    known = history[-_SHOWN:]
    words = ", ".join(f"{one.number} ({one.spec.metadata.version})" for one in known)
    return NotFoundError(
        f"There is no {what} of {model_id}; its revisions are {words}.",
        model_id=model_id,
        revisions=[one.number for one in known],
    )
