"""Roles: the built-in ones and the organization's own."""

import argparse

from prsm_sdk import identity_calls as calls

from .lists import whole
from .options import add_global_options
from .output import show_json, show_table
from .session import Session


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `role`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="create|list|change|remove")
    create = verbs.add_parser("create", help="make a role of your organization's own")
    create.add_argument("permissions", nargs="*", metavar="PERMISSION", help="such as models.read")
    listing = verbs.add_parser("list", help="list roles and what they allow")
    change = verbs.add_parser("change", help="change what a role allows, at once")
    change.add_argument(
        "permissions", nargs="*", metavar="PERMISSION", help="all that it allows from now on"
    )
    remove = verbs.add_parser("remove", help="remove a role that nobody has")
    for verb in (create, change, remove):
        verb.add_argument("--name", required=True, help="the role")
        verb.add_argument(
            "--organization", metavar="NAME", default=argparse.SUPPRESS, help="by default your own"
        )
    for verb in (create, change):
        verb.add_argument("--description", metavar="TEXT", help="what it is for")
    for verb in (create, listing, change, remove):
        add_global_options(verb, inherit=True)


def run(session: Session, args: argparse.Namespace) -> int:
    """Make, list, change or remove roles."""
    if args.verb == "list":
        return _list(session)
    call = {
        "create": lambda: calls.create_role(
            args.name, args.permissions, args.description, args.organization
        ),
        "change": lambda: calls.change_role(
            args.name, args.permissions or None, args.description, args.organization
        ),
        "remove": lambda: calls.remove_role(args.name, args.organization),
    }[args.verb]()
    role = session.client.send(call)
    if session.as_json:
        show_json(role.raw)
    elif args.verb == "remove":
        print(f"role {role.name} of {role.organization} is removed")
    else:
        print(f"role {role.name} of {role.organization} allows {_words(role.permissions)}")
    return 0


def _list(session: Session) -> int:
    found = whole(session, calls.list_roles)
    if session.as_json:
        show_json(found.raw)
        return 0
    show_table(
        ["ROLE", "ORGANIZATION", "ALLOWS"],
        [(r.name, r.organization or "(built in)", _words(r.permissions)) for r in found],
    )
    return 0


def _words(permissions: tuple[str, ...]) -> str:
    return " ".join(permissions) or "nothing"


COMMANDS = {"role": (arguments, run)}
