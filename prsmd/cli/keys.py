"""API keys."""

import argparse

from prsm_sdk import calls

from .options import add_global_options, positive_seconds
from .output import show_json, show_table
from .session import Session, note


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `key`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="create|list|revoke")
    create = verbs.add_parser("create", help="make a key; it is shown this once")
    create.add_argument("name", help="what the key is for")
    create.add_argument("--organization", metavar="NAME", help="by default your own")
    create.add_argument(
        "--role", help="admin (the default), owner, deployer, operator, viewer, invoker or auditor"
    )
    create.add_argument(
        "--expires", metavar="DURATION", type=positive_seconds, help="12h, 30d; by default never"
    )
    listing = verbs.add_parser("list", help="list keys, without their secrets")
    revoke = verbs.add_parser("revoke", help="refuse a key from now on")
    revoke.add_argument("key_id", help="the key's id")
    for verb in (create, listing, revoke):
        add_global_options(verb, inherit=True)


def run(session: Session, args: argparse.Namespace) -> int:
    """Create, list or revoke keys."""
    return {"create": _create, "list": _list, "revoke": _revoke}[args.verb](session, args)


def _create(session: Session, args: argparse.Namespace) -> int:
    """Print a new key alone on stdout, so that it can go to a file."""
    expires = None if args.expires is None else int(args.expires) or 1
    call = calls.create_key(args.name, args.organization, args.role, expires)
    key = session.client.send(call)
    if session.as_json:
        show_json(key.raw)
        return 0
    print(key.key)
    note(f"key {key.key_id} for {key.organization} as {key.role}; it is not shown again")
    return 0


def _list(session: Session, _args: argparse.Namespace) -> int:
    page = session.client.send(calls.list_keys())
    if session.as_json:
        show_json(page.raw)
        return 0
    show_table(
        ["KEY", "NAME", "ORGANIZATION", "ROLE", "CREATED", "EXPIRES", "REVOKED"],
        [
            (k.key_id, k.name, k.organization, k.role, k.created_at, k.expires_at, k.revoked_at)
            for k in page
        ],
    )
    return 0


def _revoke(session: Session, args: argparse.Namespace) -> int:
    answer = session.client.send(calls.revoke_key(args.key_id))
    if session.as_json:
        show_json(answer)
    else:
        print(f"key {args.key_id} is revoked")
    return 0


COMMANDS = {"key": (arguments, run)}
