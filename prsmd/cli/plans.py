"""Plans for people: what would change, step by step and with reasons."""

import argparse
import json
from typing import TypeVar

from prsm_sdk.calls import Call
from prsm_sdk.models import FieldChange
from prsm_sdk.plans import Plan, PlanHold, PlanStep, dry
from prsm_sdk.wire import Wire

from .output import printable, show_json
from .session import Session

T = TypeVar("T", bound=Wire)


def dry_run_argument(parser: argparse.ArgumentParser) -> None:
    """Add the flag that asks what would be done."""
    parser.add_argument(
        "--dry-run", action="store_true", help="do nothing; show what would be done, and why"
    )


def show_dry_run(session: Session, call: Call[T]) -> int:
    """Print what a call would do."""
    plan = session.client.send(dry(call))
    if session.as_json:
        show_json(plan.raw)
    else:
        show_plan(plan)
    return 0


def show_plan(plan: Plan, note: str = "") -> None:
    """Print a plan; `note` goes behind its first line."""
    lines = [_headline(plan) + note]
    lines += [f"    {change_words(change)}" for change in plan.changes]
    if plan.message:
        lines.append(f"    ({plan.message})")
    if not plan.unchanged:
        lines += _course(plan)
    print("\n".join(printable(line) for line in lines))


def change_words(change: FieldChange) -> str:
    """Return a changed field in words."""
    name = change.field.removeprefix("deployment_config.")
    if change.before is None:
        return f"{name}: {_value(change.after)}"
    return f"{name}: {_value(change.before)} -> {_value(change.after)}"


def _headline(plan: Plan) -> str:
    wanted = f"revision {plan.revision} ({plan.version})"
    if plan.unchanged:
        return f"= {plan.model_id}: unchanged, {wanted}"
    if plan.previous_revision is None:
        return f"+ {plan.model_id}: new model, {wanted}"
    if plan.previous_revision == plan.revision:
        return f"~ {plan.model_id}: {plan.action}, {plan.plan.strategy}"
    return f"~ {plan.model_id}: revision {plan.previous_revision} -> {wanted}, {plan.plan.strategy}"


def _course(plan: Plan) -> list[str]:
    course, image = plan.plan, plan.image
    lines = [] if image is None else [f"  image {image.reference}: {_where(plan)}"]
    lines += [f"  {n:3}. {_step_words(step)}" for n, step in enumerate(course.steps, 1)]
    lines += [line for hold in course.holds for line in _hold_lines(hold)]
    if course.waits_for:
        lines.append(f"  then it waits: {course.waits_for}")
    if not course.complete:
        lines.append("  and so on: it was not worked out to its end")
    goal = "it reaches what is asked" if course.reaches_goal else "it does not reach what is asked"
    return [*lines, f"  {goal}{_lowest(plan)}"]


def _lowest(plan: Plan) -> str:
    """Return how many replicas serve on the way; of a model that is new, none can."""
    if plan.previous_revision is None:
        return ""
    lowest = plan.plan.lowest_ready
    serving = f"at least {lowest} serve" if lowest else "for a while none serves, and requests wait"
    return f"; {serving}"


def _where(plan: Plan) -> str:
    image = plan.image
    if image is None or image.digest is None:
        return "not here; its registry was not asked or did not tell"
    return f"{image.digest}, {'here' if image.here else 'not here yet'}"


def _step_words(step: PlanStep) -> str:
    what = step.kind.replace("_", " ")
    if step.slot is not None:
        what += f" revision {step.revision}, slot {step.slot}"
    if step.replica_id:
        what += f" ({step.replica_id})"
    if step.kind == "launch":
        what += f" on {', '.join(step.gpu_uuids) or step.node or '?'}"
    return f"{what}: {step.reason}"


def _hold_lines(hold: PlanHold) -> list[str]:
    head = f"  held: revision {hold.revision}, slot {hold.slot}: {hold.reason}"
    return [head, *(f"    {detail}" for detail in hold.details)]


def _value(value: object) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)
