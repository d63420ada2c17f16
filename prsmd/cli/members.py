"""Members: who belongs to an organization, with which roles."""

import argparse

from prsm_sdk import identity_calls as calls
from prsm_sdk.calls import Call
from prsm_sdk.identity_models import Binding, Member

from .lists import whole
from .options import add_global_options, positive_seconds
from .output import show_json, show_table
from .session import Session, UsageError, note

_KINDS = ("user", "group", "uid", "gid", "oidc", "key")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `member`."""
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="add|list|change|remove|accept|leave"
    )
    add = verbs.add_parser("add", help="make somebody a member with these roles, or invite them")
    add.add_argument("kind", choices=_KINDS, help="how they are recognized")
    add.add_argument("subject", help="a user, group or number; a token's subject; a key's id")
    add.add_argument("--name", metavar="TEXT", help="what people call them")
    add.add_argument(
        "--organization", metavar="NAME", default=argparse.SUPPRESS, help="by default your own"
    )
    listing = verbs.add_parser("list", help="list members and their roles")
    change = verbs.add_parser("change", help="give other roles in place of those they have")
    remove = verbs.add_parser("remove", help="take all roles away")
    accept = verbs.add_parser("accept", help="accept an invitation of your own; whoami lists them")
    leave = verbs.add_parser("leave", help="end a membership of your own, or refuse an invitation")
    for verb in (change, remove, accept, leave):
        verb.add_argument("member_id", help="the member's id")
    for verb in (add, change):
        verb.add_argument(
            "--role",
            action="append",
            default=[],
            metavar="ROLE[@MODEL]",
            help="a role in the organization, or on one model; may be given more than once",
        )
        verb.add_argument(
            "--expires", metavar="DURATION", type=positive_seconds, help="12h, 30d: the roles end"
        )
    for verb in (add, listing, change, remove, accept, leave):
        add_global_options(verb, inherit=True)


def run(session: Session, args: argparse.Namespace) -> int:
    """Add, list, change or remove members."""
    if args.verb == "list":
        return _list(session)
    call = {
        "add": lambda: calls.add_member(
            args.kind,
            args.subject,
            _bindings(args.role),
            args.name,
            args.organization,
            args.expires,
        ),
        "change": lambda: _change(args),
        "remove": lambda: calls.remove_member(args.member_id),
        "accept": lambda: calls.accept_member(args.member_id),
        "leave": lambda: calls.leave_member(args.member_id),
    }[args.verb]()
    member = session.client.send(call)
    if session.as_json:
        show_json(member.raw)
    elif args.verb in {"remove", "leave"}:
        print(f"{member.name} ({member.member_id}) is no member of {member.organization} any more")
    else:
        print(f"{member.name} ({member.member_id}) in {member.organization}: {_words(member)}")
        if member.status == "invited":
            note(
                f"an invitation, without effect until accepted: prsmctl member accept"
                f" {member.member_id}"
            )
    return 0


def _list(session: Session) -> int:
    found = whole(session, calls.list_members)
    if session.as_json:
        show_json(found.raw)
        return 0
    show_table(
        ["MEMBER", "NAME", "ORGANIZATION", "RECOGNIZED BY", "ROLES", "STATUS", "EXPIRES"],
        [
            (
                m.member_id,
                m.name,
                m.organization,
                f"{m.kind} {m.subject}",
                _words(m),
                m.status,
                m.expires_at,
            )
            for m in found
        ],
    )
    return 0


def _change(args: argparse.Namespace) -> Call[Member]:
    """Return the change of what was named, and of nothing else."""
    bindings = _bindings(args.role) if args.role else None
    more = {} if args.expires is None else {"expires_in_seconds": args.expires}
    if bindings is None and not more:
        raise UsageError("nothing to change was named: give --role or --expires")
    return calls.change_member(args.member_id, bindings, **more)


def _bindings(roles: list[str]) -> list[dict[str, str]]:
    found = []
    for text in roles:
        role, _, model = text.partition("@")
        found.append({"role": role, **({"model": model} if model else {})})
    return found


def _words(member: Member) -> str:
    return ", ".join(_role(binding) for binding in member.bindings) or "no role"


def _role(binding: Binding) -> str:
    where = binding.model_id or binding.deployment_id
    return f"{binding.role}@{where}" if where else binding.role


COMMANDS = {"member": (arguments, run)}
