"""The quota of an organization: `prsmctl org quota`."""

import argparse
from collections.abc import Mapping

from prsm_sdk import identity_calls as calls
from prsm_sdk.quota_models import QuotaLimit

from .output import show_json, show_table
from .session import Session, UsageError

_UNLIMITED = "unlimited"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `org quota`."""
    parser.add_argument("name", nargs="?", help="the organization; by default your own")
    parser.add_argument(
        "--set",
        dest="limits",
        action="append",
        default=[],
        metavar="DIMENSION=AMOUNT",
        help="set a limit (cpu=8, memory=64Gi, keys=50, gpu=unlimited, models=default)",
    )


def run(session: Session, args: argparse.Namespace) -> int:
    """Show an organization's quota, or set limits of it."""
    changes = dict(_limit(text) for text in args.limits)
    name = args.name or session.client.send(calls.who_am_i()).organization
    if name is None:
        raise UsageError("you belong to several organizations, or to none: name one")
    call = calls.change_quota(name, changes) if changes else calls.get_quota(name)
    found = session.client.send(call)
    if session.as_json:
        show_json(found.raw)
        return 0
    print(f"organization: {found.organization_id}")
    show_quota(found.quota)
    return 0


def show_quota(quota: Mapping[str, QuotaLimit]) -> None:
    """Print limits with what is used of them."""
    show_table(
        ["DIMENSION", "USED", "HARD", "RESERVED", "SET BY"],
        [(name, each.used, _hard(each), each.reserved, _by(each)) for name, each in quota.items()],
    )


def _hard(limit: QuotaLimit) -> str | int:
    return _UNLIMITED if limit.hard is None else limit.hard


def _by(limit: QuotaLimit) -> str:
    return "default" if limit.default else "administrator"


def _limit(text: str) -> tuple[str, str]:
    name, equals, amount = text.partition("=")
    if not (name and equals and amount):
        raise UsageError(f"--set {text[:50]!r} is no DIMENSION=AMOUNT such as cpu=8")
    return name, amount
