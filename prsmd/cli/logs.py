"""What a model's containers wrote."""

import argparse

from prsm_sdk import calls
from prsm_sdk.models import LogLine

from .options import count, moment
from .output import for_output, show_json
from .session import Session


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `logs`."""
    parser.add_argument("name", help="deployment id, model id or model name")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as lines are written")
    parser.add_argument("--tail", metavar="N", type=count, help="only the last N lines")
    parser.add_argument(
        "--since", metavar="AGE|TIME", type=moment, help="10m for ten minutes ago, or a time"
    )
    parser.add_argument("--replica", metavar="ID", help="only of this replica")


def run(session: Session, args: argparse.Namespace) -> int:
    """Print log lines: one a line, each a JSON object with `-o json`."""
    deployment = session.deployment_id_of(args.name)
    if args.follow:
        follow = calls.follow_logs(deployment, args.tail, args.since, args.replica)
        for line in session.client.follow(follow):
            _show(session, line)
        return 0
    page = session.client.send(calls.logs(deployment, args.tail, args.since, args.replica))
    if session.as_json:
        show_json(page.raw)
        return 0
    for line in page:
        _show(session, line)
    return 0


def _show(session: Session, line: LogLine) -> None:
    if session.as_json:
        import json

        print(json.dumps(line.raw, ensure_ascii=False), flush=True)
        return
    replica = f" {line.replica_id}" if line.replica_id else ""
    print(f"{line.at}{replica} {for_output(line.text)}", flush=True)


COMMANDS = {"logs": (arguments, run)}
