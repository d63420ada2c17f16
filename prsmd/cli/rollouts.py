"""Rollouts: watch an update, steer it, divide its traffic."""

import argparse
import json
import time

from prsm_sdk import calls, revision_calls
from prsm_sdk.errors import ClientTimeoutError
from prsm_sdk.models import Event, Rollout, RolloutState, TrafficShare
from prsm_sdk.waiting import has_completed

from .events import show_event
from .options import add_global_options, count, pair
from .output import printable, show_fields, show_json, show_table
from .progress import WAIT_SECONDS, ProgressLine
from .session import Session, UsageError, note

_PAUSE = 0.5  # seconds between two looks
_LOOK_BACK = 200  # events


def rollout_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `rollout`."""
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="|".join(("status", *revision_calls.STEPS))
    )
    status = verbs.add_parser("status", help="show how the latest update goes")
    status.add_argument("name", help="model id, model name or deployment id")
    status.add_argument(
        "-f", "--follow", action="store_true", help="until it ends; 1 if it was not completed"
    )
    add_global_options(status, inherit=True)
    for verb, does in _STEPS.items():
        step = verbs.add_parser(verb, help=does)
        step.add_argument("name", help="model id, model name or deployment id")
        step.add_argument(
            "--if-match", metavar="N", type=count, help="only if the model is at this revision"
        )
        add_global_options(step, inherit=True)


def run_rollout(session: Session, args: argparse.Namespace) -> int:
    """Show or steer a rollout."""
    model = args.name
    if args.verb == "status":
        return _follow(session, model) if args.follow else _show(session, model)
    state = session.client.send(revision_calls.steer(model, args.verb, args.if_match))
    if session.as_json:
        show_json(state.raw)
        return 0
    done = "" if state.changed else "already "
    print(printable(f"{state.model_id}: {done}{headline(state.rollout)}"))
    return 0


def traffic_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `traffic`."""
    parser.add_argument("name", help="model id, model name or deployment id")
    parser.add_argument(
        "shares", metavar="REVISION=PERCENT", nargs="*", type=_share, help="none: show them"
    )
    parser.add_argument(
        "--if-match", metavar="N", type=count, help="only if the model is at this revision"
    )


def run_traffic(session: Session, args: argparse.Namespace) -> int:
    """Show how a model's traffic divides, or divide it."""
    model = args.name
    if args.shares:
        weights = dict(args.shares)
        if len(weights) < len(args.shares):
            raise UsageError("name each revision once")
        state = session.client.send(revision_calls.set_traffic(model, weights, args.if_match))
        raw, shares = state.raw, state.traffic
    else:
        found = session.client.send(calls.get_custom_model(model))
        raw, shares = {"traffic": found.raw.get("traffic", [])}, found.traffic
    if session.as_json:
        show_json(raw)
    else:
        _show_traffic(shares)
    return 0


def wait_until_over(session: Session, model: str) -> int:
    """Show a rollout's progress on stderr until it has ended, then the rollout itself."""
    _print(session, wait_until_rolled_out(session, model))
    return 0


def wait_until_rolled_out(session: Session, model: str) -> RolloutState:
    """Return a model's rollout once it is completed; its progress is shown on stderr.

    Raises:
        RolloutFailedError: It was not completed; the message says why.
        ClientTimeoutError: It goes on when the time is over.
    """
    seconds = session.timeout or WAIT_SECONDS
    deadline, line = time.monotonic() + seconds, ProgressLine()
    try:
        while True:
            state = session.client.send(revision_calls.rollout(model))
            line.show(headline(state.rollout))
            if has_completed(state):
                return state
            if time.monotonic() + _PAUSE > deadline:
                raise ClientTimeoutError(f"{model} is not rolled out after {seconds:g} s")
            time.sleep(_PAUSE)
    finally:
        line.end()


def headline(rollout: Rollout | None) -> str:
    """Return in one line how far a rollout is."""
    if rollout is None:
        return "nothing is being rolled out"
    parts = [f"revision {rollout.to_revision} ({rollout.to_version})", rollout.strategy]
    parts.append(rollout.phase.replace("_", " ") + (", paused" if rollout.paused else ""))
    if rollout.active and rollout.steps and rollout.step:
        parts.append(f"step {rollout.step} of {len(rollout.steps)}")
    if rollout.active and rollout.weight is not None:
        parts.append(f"{rollout.weight} %")
    why = rollout.waiting_for if rollout.active else rollout.outcome
    return ", ".join(parts) + (f": {why}" if why else "")


def _show(session: Session, model: str) -> int:
    _print(session, session.client.send(revision_calls.rollout(model)))
    return 0


def _print(session: Session, state: RolloutState) -> None:
    rollout = state.rollout
    if session.as_json or rollout is None:
        show_json(state.raw)
        return
    show_fields(
        {
            "model": state.model_id,
            "rollout": f"{rollout.number}, {rollout.strategy}",
            "phase": rollout.phase + (" (paused)" if rollout.paused else ""),
            "from": f"revision {rollout.from_revision} ({rollout.from_version})",
            "to": f"revision {rollout.to_revision} ({rollout.to_version})",
            **_measured(rollout),
            "step": f"{rollout.step} of {len(rollout.steps)}" if rollout.steps else None,
            "waiting for": rollout.waiting_for,
            "outcome": rollout.outcome,
            "started": f"{rollout.started_at} by {rollout.started_by}",
            "finished": rollout.finished_at,
        }
    )
    for text in rollout.evidence:
        print(f"  {printable(text)}")
    if rollout.active and state.traffic:
        print()
        _show_traffic(state.traffic)


def _measured(rollout: Rollout) -> dict[str, str]:
    """Return what a trial's step has measured so far, a line for each side."""
    if rollout.measured is None:
        return {}
    lines = {}
    for side, name in (("trial", "on trial"), ("stable", "stable")):
        found = rollout.measured[side]
        latency = found["mean_latency_ms"]
        mean = "no latency" if latency is None else f"mean {latency} ms"
        lines[name] = f"{found['requests']} requests, {found['errors']} errors, {mean}"
    copies = rollout.measured["copies"]
    if copies["compared"] or copies["dropped"]:
        lines["copies"] = (
            f"{copies['compared']} answers compared, {copies['differing']} differ,"
            f" {copies['dropped']} not made"
        )
    return lines


def _show_traffic(shares: tuple[TrafficShare, ...]) -> None:
    rows = [
        (item.revision, item.version, "by load" if item.weight is None else f"{item.weight} %")
        for item in shares
    ]
    show_table(["REVISION", "VERSION", "TRAFFIC"], rows)


def _follow(session: Session, model: str) -> int:
    """Print the events of the latest rollout as they happen until it has ended."""
    deadline = None if session.timeout is None else time.monotonic() + session.timeout
    line, seen = ProgressLine(), 0
    while True:
        state = session.client.send(revision_calls.rollout(model))
        if state.rollout is None:
            return _show(session, model)
        for event in _events_of(session, state, seen):
            line.clear()
            show_event(session, event)
            seen = event.sequence
        if not state.rollout.active:
            line.clear()
            return _end(session, state, state.rollout)
        line.show(headline(state.rollout))
        if deadline is not None and time.monotonic() + _PAUSE > deadline:
            line.end()
            raise ClientTimeoutError(f"{model} is not rolled out after {session.timeout:g} s")
        time.sleep(_PAUSE)


def _events_of(session: Session, state: RolloutState, after: int) -> list[Event]:
    began = state.rollout.started_at if state.rollout is not None else None
    page = session.client.send(calls.events(state.deployment_id, _LOOK_BACK))
    return [event for event in page if event.sequence > after and event.at >= (began or "")]


def _end(session: Session, state: RolloutState, rollout: Rollout) -> int:
    if session.as_json:
        print(json.dumps(state.raw, ensure_ascii=False), flush=True)
    else:
        note(printable(headline(rollout)))
        for text in rollout.evidence:
            note(f"  {printable(text)}")
    return 0 if rollout.phase == "completed" else 1


def _share(text: str) -> tuple[int, int]:
    revision, percent = pair(text)
    return count(revision), count(percent.removesuffix("%"))


_STEPS = {
    "pause": "take no further step until resumed",
    "resume": "go on",
    "promote": "end a trial well: the new revision takes over",
    "abort": "end it: what it was to replace is wanted again",
}
COMMANDS = {
    "rollout": (rollout_arguments, run_rollout),
    "traffic": (traffic_arguments, run_traffic),
}
