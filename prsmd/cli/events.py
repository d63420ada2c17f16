"""What happened to a deployment, and why."""

import argparse

from prsm_sdk import calls
from prsm_sdk.models import Event

from .options import count
from .output import printable, show_json
from .session import Session


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `events`."""
    parser.add_argument("name", help="deployment id, model id or model name")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as things happen")
    parser.add_argument("--limit", type=count, default=100, help="at most this many (100)")


def run(session: Session, args: argparse.Namespace) -> int:
    """Print events: one a line, each a JSON object with `-o json` when following."""
    deployment = session.deployment_id_of(args.name)
    if args.follow:
        for event in session.client.follow(calls.follow_events(deployment)):
            show_event(session, event)
        return 0
    page = session.client.send(calls.events(deployment, args.limit))
    if session.as_json:
        show_json(page.raw)
        return 0
    for event in page:
        show_event(session, event)
    return 0


def show_event(session: Session, event: Event) -> None:
    """Print one event on one line."""
    if session.as_json:
        import json

        print(json.dumps(event.raw, ensure_ascii=False), flush=True)
        return
    mark = "!" if event.severity == "warning" else " "
    print(f"{event.at} {mark} {printable(f'{event.reason}: {event.message}')}", flush=True)


COMMANDS = {"events": (arguments, run)}
