"""API keys, and who the caller is."""

import argparse
from typing import Any

from prsm_sdk import identity_calls as calls
from prsm_sdk.models import ApiKey

from .lists import whole
from .options import add_global_options, count, positive_seconds
from .output import show_fields, show_json, show_table
from .quotas import show_quota
from .session import Session, UsageError, note

_VERBS = "create|list|show|change|rotate|revoke"
_BOUNDS = ("expires", "models", "networks", "per_minute", "per_day")
_FIELDS = {
    "expires": "expires_in_seconds",
    "per_minute": "requests_per_minute",
    "per_day": "requests_per_day",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `key`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar=_VERBS)
    create = verbs.add_parser("create", help="make a key; it is shown this once")
    create.add_argument("name", help="what the key is for")
    create.add_argument(
        "--organization", metavar="NAME", default=argparse.SUPPRESS, help="by default your own"
    )
    listing = verbs.add_parser("list", help="list keys, without their secrets")
    show = verbs.add_parser("show", help="show a key, without its secret")
    change = verbs.add_parser("change", help="change a key, at once")
    change.add_argument("--name", help="what the key is for")
    change.add_argument(
        "--no", action="append", default=[], choices=_BOUNDS, help="take a bound away"
    )
    rotate = verbs.add_parser("rotate", help="give a key a new secret; it is shown this once")
    rotate.add_argument(
        "--overlap",
        metavar="DURATION",
        type=_overlap,
        help="how long the old secret stays good (1h; 0 ends it at once)",
    )
    revoke = verbs.add_parser("revoke", help="refuse a key from now on, and end what it began")
    for verb in (show, change, rotate, revoke):
        verb.add_argument("key_id", help="the key's id")
    for verb in (create, change):
        _add_bounds(verb)
    for verb in (create, listing, show, change, rotate, revoke):
        add_global_options(verb, inherit=True)


def _add_bounds(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--role", help="admin (of a new key), owner, deployer, …; prsmctl role list shows all")
    add("--expires", metavar="DURATION", type=positive_seconds, help="12h, 30d")
    add("--model", dest="models", action="append", metavar="MODEL", help="hold it to this model")
    add("--network", dest="networks", action="append", metavar="CIDR", help="hold it to this one")
    add("--per-minute", type=count, metavar="N", help="requests a minute")
    add("--per-day", type=count, metavar="N", help="requests a day (UTC)")


def run(session: Session, args: argparse.Namespace) -> int:
    """Create, list, show, change, rotate or revoke keys."""
    verbs = {
        "create": _create,
        "list": _list,
        "show": _show,
        "change": _change,
        "rotate": _rotate,
        "revoke": _revoke,
    }
    return verbs[args.verb](session, args)


def who(session: Session, _args: argparse.Namespace) -> int:
    """Show who the caller is."""
    caller = session.client.send(calls.who_am_i())
    if session.as_json:
        show_json(caller.raw)
        return 0
    show_fields(
        {
            "you are": caller.principal,
            "organization": caller.organization,
            "role": caller.role,
            "you may": " ".join(caller.permissions),
            "held to": caller.only_models,
        }
    )
    for member in caller.memberships:
        if member.status == "invited":
            print(f"invited to {member.organization}: prsmctl member accept {member.member_id}")
        elif member.organization != caller.organization:
            print(f"also in {member.organization}: prsmctl --organization {member.organization} …")
    for model in caller.on_models:
        print(f"on {model.model_id}: {' '.join(model.permissions)}")
    if caller.quota:
        print()
        show_quota(caller.quota)
    return 0


def _create(session: Session, args: argparse.Namespace) -> int:
    """Print a new key alone on stdout, so that it can go to a file."""
    wishes = {"organization": args.organization, **_wishes(args)}
    key = session.client.send(calls.create_key(args.name, **wishes))
    return _shown_once(session, key, f"key {key.key_id} for {key.organization} as {key.role}")


def _rotate(session: Session, args: argparse.Namespace) -> int:
    key = session.client.send(calls.rotate_key(args.key_id, args.overlap))
    until = key.previous_secret_until
    old = f"the old secret is good until {until}" if until else "the old secret has ended"
    return _shown_once(session, key, f"key {key.key_id} has a new secret; {old}")


def _shown_once(session: Session, key: ApiKey, words: str) -> int:
    if session.as_json:
        show_json(key.raw)
        return 0
    print(key.key)
    note(f"{words}; it is not shown again")
    return 0


def _list(session: Session, _args: argparse.Namespace) -> int:
    found = whole(session, calls.list_keys)
    if session.as_json:
        show_json(found.raw)
        return 0
    show_table(
        ["KEY", "NAME", "ORGANIZATION", "ROLE", "LAST USED", "EXPIRES", "REVOKED"],
        [
            (k.key_id, k.name, k.organization, k.role, k.last_used_at, k.expires_at, k.revoked_at)
            for k in found
        ],
    )
    return 0


def _show(session: Session, args: argparse.Namespace) -> int:
    return _told(session, session.client.send(calls.get_key(args.key_id)))


def _change(session: Session, args: argparse.Namespace) -> int:
    changes = _wishes(args) | {_FIELDS.get(name, name): None for name in args.no}
    if args.name is not None:
        changes["name"] = args.name
    if not changes:
        raise UsageError("nothing to change was named")
    return _told(session, session.client.send(calls.change_key(args.key_id, changes)))


def _revoke(session: Session, args: argparse.Namespace) -> int:
    key = session.client.send(calls.revoke_key(args.key_id))
    if session.as_json:
        show_json(key.raw)
    else:
        print(f"key {args.key_id} is revoked")
    return 0


def _wishes(args: argparse.Namespace) -> dict[str, Any]:
    wishes = {
        "role": args.role,
        "expires_in_seconds": args.expires,
        "models": args.models,
        "networks": args.networks,
        "requests_per_minute": args.per_minute,
        "requests_per_day": args.per_day,
    }
    return {name: value for name, value in wishes.items() if value is not None}


def _told(session: Session, key: ApiKey) -> int:
    if session.as_json:
        show_json(key.raw)
        return 0
    show_fields(
        {
            "key": key.key_id,
            "name": key.name,
            "organization": key.organization,
            "role": key.role,
            "created": key.created_at,
            "by": key.created_by,
            "last used": key.last_used_at,
            "expires": key.expires_at,
            "revoked": key.revoked_at,
            "rotated": key.rotated_at,
            "old secret until": key.previous_secret_until,
            "models": key.models,
            "networks": key.networks,
            "a minute": key.requests_per_minute,
            "a day": key.requests_per_day,
        }
    )
    return 0


def _overlap(text: str) -> float:
    return 0.0 if text == "0" else positive_seconds(text)


def no_arguments(_parser: argparse.ArgumentParser) -> None:
    """Add nothing."""


COMMANDS = {"key": (arguments, run), "whoami": (no_arguments, who)}
