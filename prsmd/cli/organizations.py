"""Organizations."""

import argparse

from prsm_sdk import identity_calls as calls

from . import quotas
from .lists import whole
from .options import add_global_options
from .output import show_fields, show_json, show_table
from .session import Session

_VERBS = "create|list|show|rename|quota|disable|enable|remove"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `org`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar=_VERBS)
    create = verbs.add_parser("create", help="make an organization")
    create.add_argument("name", help="1 to 63 of a-z, 0-9 and -; it is never given again")
    create.add_argument("--display-name", metavar="TEXT", help="what people call it")
    listing = verbs.add_parser("list", help="list organizations")
    chosen = []
    for verb, does in (
        ("show", "show an organization"),
        ("rename", "change what people call it"),
        ("disable", "refuse its callers; its models run on"),
        ("enable", "let its callers in again"),
        ("remove", "remove it, with its keys, members and roles; it must have no models"),
    ):
        one = verbs.add_parser(verb, help=does)
        one.add_argument("name", help="the organization")
        chosen.append(one)
    chosen[1].add_argument("display_name", help="what people call it")
    quota = verbs.add_parser("quota", help="show what it may have at most, or set that")
    quotas.arguments(quota)
    for verb_parser in (create, listing, quota, *chosen):
        add_global_options(verb_parser, inherit=True)


def run(session: Session, args: argparse.Namespace) -> int:
    """Make, list, show, change or remove organizations."""
    if args.verb == "list":
        return _list(session)
    if args.verb == "quota":
        return quotas.run(session, args)
    call = {
        "create": lambda: calls.create_organization(args.name, args.display_name),
        "show": lambda: calls.get_organization(args.name),
        "rename": lambda: calls.change_organization(args.name, args.display_name),
        "disable": lambda: calls.change_organization(args.name, disabled=True),
        "enable": lambda: calls.change_organization(args.name, disabled=False),
        "remove": lambda: calls.remove_organization(args.name),
    }[args.verb]()
    organization = session.client.send(call)
    if session.as_json:
        show_json(organization.raw)
    elif args.verb == "remove":
        print(f"organization {args.name} is removed")
    else:
        show_fields(
            {
                "organization": organization.organization_id,
                "name": organization.display_name,
                "disabled": organization.disabled_at,
                "created": organization.created_at,
                "by": organization.created_by,
            }
        )
    return 0


def _list(session: Session) -> int:
    found = whole(session, calls.list_organizations)
    if session.as_json:
        show_json(found.raw)
        return 0
    show_table(
        ["ORGANIZATION", "NAME", "DISABLED", "CREATED"],
        [(o.organization_id, o.display_name, o.disabled_at, o.created_at) for o in found],
    )
    return 0


COMMANDS = {"org": (arguments, run)}
