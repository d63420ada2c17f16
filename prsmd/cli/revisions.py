"""Revisions: update a model, go back, see what it has been and how that differs."""

import argparse

from prsm_sdk import revision_calls
from prsm_sdk.calls import Call
from prsm_sdk.models import FieldChange, UpdateResult

from .body import body_of, request_arguments, rollout_arguments, rollout_of, section
from .options import count
from .output import printable, show_json, show_table
from .plans import dry_run_argument, show_dry_run
from .session import Session, UsageError, explain


def update_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `update`."""
    parser.add_argument("name", nargs="?", help="model id, model name or deployment id")
    request_arguments(parser)
    parser.add_argument(
        "--unset-env", metavar="NAME", action="append", default=[], help="take a variable away"
    )
    rollout_arguments(parser)
    _change_arguments(parser)


def run_update(session: Session, args: argparse.Namespace) -> int:
    """Change a model."""
    name, args.name = args.name, None  # what names the model is no part of the change
    body = body_of(args)
    for variable in args.unset_env:
        path = ("deployment_config", "environment", variable)
        section(body, path)[variable] = None
    if rollout := rollout_of(args):
        section(body, ("rollout", "")).update(rollout)
    name = name or body.get("model_name")
    if not isinstance(name, str):
        raise UsageError("say which model: prsmctl update MODEL …")
    if not body.keys() - {"model_name", "rollout"}:
        raise UsageError("say what to change, such as --image IMAGE, or give a file with -f")
    return _carry_out(session, revision_calls.update(name, body, args.if_match), args)


def rollback_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `rollback`."""
    parser.add_argument("name", help="model id, model name or deployment id")
    parser.add_argument(
        "target", nargs="?", help="a revision's number or a version; by default the last good one"
    )
    rollout_arguments(parser)
    _change_arguments(parser)


def run_rollback(session: Session, args: argparse.Namespace) -> int:
    """Go back to an earlier revision."""
    target = int(args.target) if (args.target or "").isdecimal() else args.target
    call = revision_calls.rollback(args.name, target, rollout_of(args) or None, args.if_match)
    return _carry_out(session, call, args)


def versions_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `versions`."""
    parser.add_argument("name", help="model id, model name or deployment id")
    parser.add_argument("--limit", type=count, default=20, help="at most this many (20)")
    parser.add_argument("--offset", type=count, default=0, help="leave out the newest ones")


def run_versions(session: Session, args: argparse.Namespace) -> int:
    """List a model's revisions, newest first."""
    call = revision_calls.versions(args.name, args.limit, args.offset)
    page = session.client.send(call)
    if session.as_json:
        show_json(page.raw)
        return 0
    show_table(
        ["REVISION", "VERSION", "STATE", "WHY", "CREATED", "BY", "IMAGE", "CHANGES", "REASON"],
        [
            (
                item.revision,
                item.version,
                item.state,
                item.why,
                item.created_at,
                item.created_by,
                item.container_image,
                ", ".join(_short(change.field) for change in item.changes),
                item.reason,
            )
            for item in page
        ],
    )
    return 0


def diff_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `diff`."""
    parser.add_argument("name", help="model id, model name or deployment id")
    parser.add_argument("from_revision", metavar="FROM", nargs="?", type=count, help="a revision")
    parser.add_argument(
        "to_revision", metavar="TO", nargs="?", type=count, help="by default the wanted one"
    )


def run_diff(session: Session, args: argparse.Namespace) -> int:
    """Show how two revisions differ."""
    call = revision_calls.diff(args.name, args.from_revision, args.to_revision)
    found = session.client.send(call)
    if session.as_json:
        show_json(found.raw)
        return 0
    print(f"--- revision {found.from_revision} ({printable(found.from_version)})")
    print(f"+++ revision {found.to_revision} ({printable(found.to_version)})")
    for change in found.changes:
        print(_words(change))
    return 0


def _change_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--if-match", metavar="N", type=count, help="only if the model is at this revision"
    )
    parser.add_argument("-w", "--wait", action="store_true", help="wait until it is rolled out")
    dry_run_argument(parser)


def _carry_out(session: Session, call: Call[UpdateResult], args: argparse.Namespace) -> int:
    if args.dry_run:
        return show_dry_run(session, call)
    return _report(session, session.client.send(call), args)


def _report(session: Session, done: UpdateResult, args: argparse.Namespace) -> int:
    if args.wait and done.status == "updating":
        from .rollouts import wait_until_over

        explain(done.message, done.reasons)
        return wait_until_over(session, done.model_id)
    if session.as_json:
        show_json(done.raw)
        return 0
    version = f"revision {done.revision} ({done.version})"
    print(
        printable(
            {
                "unchanged": f"{done.model_id} is at {version} already",
                "updated": f"{done.model_id} is at {version} now; what runs goes on",
            }.get(done.status, f"{done.model_id} goes to {version}, from {done.previous_revision}")
        )
    )
    for change in done.changes:
        print(f"  {_words(change)}")
    explain(done.message, done.reasons)
    return 0


def _words(change: FieldChange) -> str:
    before, after = (_value(value) for value in (change.before, change.after))
    return printable(f"{_short(change.field)}: {before} -> {after}")


def _value(value: object) -> str:
    import json

    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)


def _short(field: str) -> str:
    return field.removeprefix("deployment_config.")


COMMANDS = {
    "update": (update_arguments, run_update),
    "rollback": (rollback_arguments, run_rollback),
    "versions": (versions_arguments, run_versions),
    "diff": (diff_arguments, run_diff),
}
