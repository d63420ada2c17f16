"""Models: list those that may be asked, set their replicas, remove them."""

import argparse
import sys

from prsm_sdk import calls

from .options import count
from .output import show_json, show_table
from .plans import dry_run_argument, show_dry_run
from .session import Session, UsageError, explain, note


def models_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `models`."""
    parser.add_argument("--limit", type=count, default=100, help="at most this many (100)")
    parser.add_argument("--offset", type=count, default=0, help="leave out the first ones")


def run_models(session: Session, args: argparse.Namespace) -> int:
    """List the models that the caller may ask."""
    page = session.client.send(calls.list_models(args.limit, args.offset))
    if session.as_json:
        show_json(page.raw)
        return 0
    show_table(
        ["MODEL", "NAME", "TYPE", "STATUS", "VERSION"],
        [(m.model_id, m.model_name, m.model_type, m.status, m.version) for m in page],
    )
    return 0


def scale_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `scale`."""
    parser.add_argument("name", help="model id, model name or deployment id")
    parser.add_argument("replicas", type=count, help="how many")
    parser.add_argument("--gradual", action="store_true", help="one by one")
    dry_run_argument(parser)
    _condition(parser)


def run_scale(session: Session, args: argparse.Namespace) -> int:
    """Set the number of replicas."""
    strategy = "gradual" if args.gradual else "immediate"
    call = calls.scale(args.name, args.replicas, strategy, None, args.if_match)
    if args.dry_run:
        return show_dry_run(session, call)
    answer = session.client.send(call)
    if session.as_json:
        show_json(answer.raw)
    else:
        had, wanted = answer.current_replicas, answer.target_replicas
        print(f"{answer.model_id or args.name} goes from {had} to {wanted} replicas")
        explain(answer.message, answer.reasons)
    return 0


def delete_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `delete`."""
    parser.add_argument("name", help="model id, model name or deployment id")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    _condition(parser)


def run_delete(session: Session, args: argparse.Namespace) -> int:
    """Remove a model."""
    if not args.yes and not _confirmed(args.name):
        note("nothing was deleted")
        return 1
    answer = session.client.send(calls.delete(args.name, args.if_match))
    if session.as_json:
        show_json(answer)
    else:
        print(f"{args.name} is being removed")
    return 0


def _condition(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--if-match", metavar="N", type=count, help="only if the model is at this revision"
    )


def _confirmed(name: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("there is nobody to ask: say --yes to delete without a question")
    print(f"Delete {name} and stop its replicas? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


COMMANDS = {
    "models": (models_arguments, run_models),
    "scale": (scale_arguments, run_scale),
    "delete": (delete_arguments, run_delete),
}
