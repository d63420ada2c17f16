"""Sharing: lend a model within limits, list to whom, change that, take it back."""

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any

from prsm_sdk import share_calls
from prsm_sdk.share_calls import Share

from .options import add_global_options, positive_seconds
from .output import show_fields, show_json, show_table
from .session import Session, UsageError

_ABSENT = 0  # no limit was given; "none" lifts one
_LIMITS = {
    "requests_per_day": "so many a day (UTC)",
    "total_requests": "so many in all",
    "requests_per_minute": "so many a minute, all of them at once if need be",
    "concurrent_requests": "so many at once",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `share`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="create|list|change|revoke")
    create = verbs.add_parser("create", help="lend a model to organizations or keys")
    change = verbs.add_parser("change", help="change a share from the next request on")
    revoke = verbs.add_parser("revoke", help="take a model back")
    listed = verbs.add_parser("list", help="list a model's shares and what is left of each")
    for verb in (create, change, revoke, listed):
        verb.add_argument("model", help="model id, model name or deployment id")
    for verb in (change, revoke):
        verb.add_argument("share", help="the share's id")
    for verb in (create, change):
        _add_terms(verb)
    for verb in verbs.choices.values():
        add_global_options(verb, inherit=True)


def run(session: Session, args: argparse.Namespace) -> int:
    """Create, list, change or revoke shares."""
    return {"create": _create, "list": _list, "change": _change, "revoke": _revoke}[args.verb](
        session, args
    )


def _add_terms(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--with",
        dest="organizations",
        action="append",
        metavar="ORGANIZATION",
        help="lend to it (again for more)",
    )
    verb.add_argument(
        "--with-key", dest="keys", action="append", metavar="KEY-ID", help="lend to one key"
    )
    verb.add_argument(
        "--permission",
        dest="permissions",
        action="append",
        choices=["read", "infer", "logs", "usage"],
        help="what it is lent for (again for more; by default read and infer)",
    )
    for name, words in _LIMITS.items():
        flag = "--" + name.replace("_", "-")
        verb.add_argument(
            flag, dest=name, type=_amount, default=_ABSENT, metavar="N", help=f"{words}, or none"
        )
    verb.add_argument(
        "--expires-in", type=positive_seconds, metavar="DURATION", help="such as 12h or 30d"
    )


def _amount(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of requests nor none")
    return int(text)


def _create(session: Session, args: argparse.Namespace) -> int:
    borrowers = {"organizations": args.organizations or [], "keys": args.keys or []}
    if bool(args.organizations) == bool(args.keys):
        raise UsageError("give either --with ORGANIZATION or --with-key KEY-ID")
    limits = {name: n for name in _LIMITS if (n := getattr(args, name))}
    permissions = args.permissions or ["read", "infer"]
    call = share_calls.share(args.model, permissions, borrowers, limits, _end(args))
    return _show(session, session.client.send(call))


def _change(session: Session, args: argparse.Namespace) -> int:
    given: dict[str, Any] = {
        "allowed_organizations": args.organizations,
        "allowed_keys": args.keys,
        "permissions": args.permissions,
        "expires_at": _end(args),
    }
    changes = {name: value for name, value in given.items() if value is not None}
    limits = {name: n for name in _LIMITS if (n := getattr(args, name)) != _ABSENT}
    changes |= {"usage_limits": limits} if limits else {}
    if not changes:
        raise UsageError("nothing to change: see prsmctl share change --help")
    call = share_calls.change_share(args.model, args.share, changes)
    return _show(session, session.client.send(call))


def _revoke(session: Session, args: argparse.Namespace) -> int:
    share = session.client.send(share_calls.revoke_share(args.model, args.share))
    if session.as_json:
        show_json(share.raw)
    else:
        print(f"{share.share_id} lends {share.model_id} no more")
    return 0


def _list(session: Session, args: argparse.Namespace) -> int:
    page = session.client.send(share_calls.list_shares(args.model, 100))
    if session.as_json:
        show_json(page.raw)
        return 0
    show_table(
        ["SHARE", "WITH", "FOR", "LEFT", "STATUS", "EXPIRES"],
        [
            (s.share_id, one.borrower, s.permissions, _left(one), s.status, s.expires_at)
            for s in page
            for one in s.borrowers
        ],
    )
    return 0


def _left(one: share_calls.BorrowerLeft) -> tuple[str, ...]:
    return tuple(f"{left.remaining} of {left.limit} {left.limit_type}" for left in one.left)


def _end(args: argparse.Namespace) -> str | None:
    if args.expires_in is None:
        return None
    return (datetime.now(UTC) + timedelta(seconds=args.expires_in)).isoformat()


def _show(session: Session, share: Share) -> int:
    if session.as_json:
        show_json(share.raw)
        return 0
    limits = [f"{n} {name}" for name, n in share.usage_limits.items() if n is not None]
    show_fields(
        {
            "Share": share.share_id,
            "Model": share.model_id,
            "With": (*share.allowed_organizations, *share.allowed_keys),
            "For": share.permissions,
            "Limits": tuple(limits),
            "Expires": share.expires_at,
        }
    )
    return 0


COMMANDS = {"share": (arguments, run)}
