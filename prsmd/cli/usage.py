"""Usage: who used a model, on which day and how much."""

import argparse
import csv
import dataclasses
import sys
from collections.abc import Iterator

from prsm_sdk import share_calls
from prsm_sdk.share_calls import DayUsage

from .output import show_json, show_table
from .session import Session

_AT_ONCE = 100
_COLUMNS = [field.name for field in dataclasses.fields(DayUsage) if field.name != "raw"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `usage`."""
    parser.add_argument("model", help="model id, model name or deployment id")
    parser.add_argument("--from", dest="first", metavar="DAY", help="such as 2026-01-01 (UTC)")
    parser.add_argument("--to", dest="last", metavar="DAY", help="today by default")
    parser.add_argument("--csv", action="store_true", help="all rows as CSV")


def run(session: Session, args: argparse.Namespace) -> int:
    """Show usage."""
    rows = list(_rows(session, args))
    if args.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows([getattr(row, name) for name in _COLUMNS] for row in rows)
    elif session.as_json:
        show_json([dict(row.raw) for row in rows])
    else:
        columns = ["DAY", "ORGANIZATION", "WHO", "REQUESTS", "ERRORS", "REFUSED", "SECONDS"]
        show_table(
            columns,
            [
                (
                    r.day,
                    r.organization,
                    r.principal,
                    r.requests,
                    r.errors,
                    r.refused,
                    r.duration_seconds,
                )
                for r in rows
            ],
        )
    return 0


def _rows(session: Session, args: argparse.Namespace) -> Iterator[DayUsage]:
    offset, more = 0, True
    while more:
        call = share_calls.usage(args.model, args.first, args.last, _AT_ONCE, offset)
        page = session.client.send(call)
        yield from page
        offset, more = offset + len(page), page.has_more


COMMANDS = {"usage": (arguments, run)}
