"""Declarative files: say what they would change, or make the models as they want them.

A file is the whole truth of its models: what it leaves out gets its default. Every document is
worked out before the first is applied; a model that somebody else changes meanwhile is left alone.
"""

import argparse
import dataclasses
from typing import Any

from prsm_sdk import calls, revision_calls
from prsm_sdk.calls import Call
from prsm_sdk.errors import InvalidApiKeyError, InvalidInputError, NotFoundError, PRSMError
from prsm_sdk.models import Deployment, UpdateResult
from prsm_sdk.plans import Plan, dry

from .failures import exit_code
from .manifests import Manifest, read_manifests
from .output import printable, show_json, show_table
from .plans import show_plan
from .session import Session, UsageError, explain, note

CHANGES = 10  # exit code of `plan --detailed-exitcode` where there are any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One document, the request that it comes to, and what that would do."""

    manifest: Manifest
    call: Call[Any]  # a deploy or an update
    plan: Plan


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one document. `deployment_id` is empty where nothing is there."""

    manifest: Manifest
    outcome: str
    revision: int = 0
    deployment_id: str = ""
    rolling: bool = False
    message: str = ""


def plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `plan`."""
    _file_argument(parser)
    parser.add_argument(
        "--detailed-exitcode", action="store_true", help=f"{CHANGES} where there are changes"
    )


def run_plan(session: Session, args: argparse.Namespace) -> int:
    """Show what `apply` would do."""
    wanted, code = _work_out(session, read_manifests(args.file))
    if session.as_json:
        show_json([{"file": w.manifest.place, **w.plan.raw} for w in wanted])
    else:
        for item in wanted:
            show_plan(item.plan, f"  [{item.manifest.place}]")
        print(_summary(wanted))
    changes = any(not item.plan.unchanged for item in wanted)
    return code or (CHANGES if changes and args.detailed_exitcode else 0)


def apply_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `apply`."""
    _file_argument(parser)
    parser.add_argument(
        "-w", "--wait", action="store_true", help="wait until everything runs or is rolled out"
    )


def run_apply(session: Session, args: argparse.Namespace) -> int:
    """Make the models as the files want them."""
    wanted, code = _work_out(session, read_manifests(args.file))
    if code:
        note("nothing was applied")
        return code
    results = [_apply(session, item) for item in wanted]
    if args.wait:
        results = [_waited_for(session, result) for result in results]
    if session.as_json:
        show_json([_raw(result) for result in results])
    else:
        show_table(
            ["MODEL", "RESULT", "REVISION", "MESSAGE"],
            [(r.manifest.name, r.outcome, r.revision or None, r.message) for r in results],
        )
    return 1 if any(result.outcome == "failed" for result in results) else 0


def _file_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f",
        "--file",
        metavar="FILE|DIR|-",
        action="append",
        required=True,
        help="YAML or JSON, one document a model; of a folder every such file; repeatable",
    )


def _work_out(session: Session, manifests: list[Manifest]) -> tuple[list[Wanted], int]:
    """Return what each document comes to, and the exit code of the first that is refused, or 0.

    Raises:
        PRSMError: The daemon does not answer, or not to this caller.
    """
    found, code = [], 0
    names: dict[str, str] = {}
    for manifest in manifests:
        try:
            wanted = _wanted(session, manifest)
        except PRSMError as error:
            if error.status is None or isinstance(error, InvalidApiKeyError):
                raise
            code = code or exit_code(error)
            explain(f"{manifest.place}: {manifest.name}: {error.message}", _fields(error))
            continue
        other = names.setdefault(wanted.plan.model_id, manifest.place)
        if other != manifest.place:
            raise UsageError(f"{manifest.place}: {wanted.plan.model_id} stands in {other} already")
        found.append(wanted)
    return found, code


def _wanted(session: Session, manifest: Manifest) -> Wanted:
    try:
        model = session.client.send(calls.get_custom_model(manifest.name))
    except NotFoundError:
        created = calls.deploy(manifest.body)
        plan = session.client.send(dry(created))
        return Wanted(manifest=manifest, call=created, plan=plan)
    rollout = {} if manifest.rollout is None else {"rollout": manifest.rollout}
    body = {**manifest.body, **rollout}
    changed = revision_calls.update(model.model_id, body, model.revision, replace=True)
    return Wanted(manifest=manifest, call=changed, plan=session.client.send(dry(changed)))


def _apply(session: Session, wanted: Wanted) -> Result:
    manifest, plan = wanted.manifest, wanted.plan
    if plan.unchanged:
        return Result(
            manifest=manifest,
            outcome="unchanged",
            revision=plan.revision,
            deployment_id=plan.deployment_id or "",
        )
    try:
        done: Deployment | UpdateResult = session.client.send(wanted.call)
    except PRSMError as error:
        explain(f"{manifest.place}: {manifest.name}: {error.message}", _fields(error))
        return Result(manifest=manifest, outcome="failed", message=error.message)
    explain(f"{manifest.name}: {done.message}" if done.message else "", done.reasons)
    return _done(manifest, done)


def _done(manifest: Manifest, done: Deployment | UpdateResult) -> Result:
    if isinstance(done, Deployment):
        return Result(
            manifest=manifest, outcome="created", revision=1, deployment_id=done.deployment_id
        )
    return Result(
        manifest=manifest,
        outcome="updated",
        revision=done.revision,
        deployment_id=done.deployment_id,
        rolling=done.status == "updating",
        message="" if done.status == "updating" else "in place",
    )


def _waited_for(session: Session, result: Result) -> Result:
    """Return what became of it in the end; what failed already, or is as it was, is not waited for.

    A rollout that goes back has failed.
    """
    from .progress import wait_until_up
    from .rollouts import wait_until_rolled_out

    if result.outcome in {"failed", "unchanged"}:
        return result
    try:
        if result.rolling:
            wait_until_rolled_out(session, result.manifest.name)
        else:
            wait_until_up(session, result.deployment_id)
    except PRSMError as error:
        explain(f"{result.manifest.name}: {error.message}", ())
        return dataclasses.replace(result, outcome="failed", message=error.message)
    return result


def _fields(error: PRSMError) -> list[str]:
    """Return one line for each of several wrong fields, and each reason that a refusal has."""
    if isinstance(error, InvalidInputError) and len(error.validation_errors) > 1:
        return [f"{item.get('field')}: {item.get('error')}" for item in error.validation_errors]
    reasons = error.details.get("reasons")
    return [str(reason) for reason in reasons] if isinstance(reasons, list) else []


def _summary(wanted: list[Wanted]) -> str:
    plans = [item.plan for item in wanted]
    new = sum(plan.previous_revision is None for plan in plans)
    same = sum(plan.unchanged for plan in plans)
    return f"{new} to create, {len(plans) - new - same} to update, {same} unchanged"


def _raw(result: Result) -> dict[str, Any]:
    return {
        "file": result.manifest.place,
        "model_name": result.manifest.name,
        "result": result.outcome,
        "revision": result.revision or None,
        "deployment_id": result.deployment_id or None,
        "message": printable(result.message),
    }


COMMANDS = {"plan": (plan_arguments, run_plan), "apply": (apply_arguments, run_apply)}
