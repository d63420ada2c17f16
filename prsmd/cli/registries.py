"""Logins to image registries. A password is read from standard input or asked for, never given."""

import argparse
import getpass
import sys

from prsm_sdk import image_calls

from .options import add_global_options
from .output import show_json, show_table
from .session import Session, UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `registry`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="add|list|remove")
    add = verbs.add_parser("add", help="keep your organization's login for a registry")
    add.add_argument("server", help="registry.example.com or host:port; docker.io for Docker's own")
    add.add_argument("--username", "-u", required=True, help="who logs in")
    add.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password from standard input (without it, you are asked)",
    )
    verbs.add_parser("list", help="list logins, without their passwords")
    remove = verbs.add_parser("remove", help="forget a login")
    remove.add_argument("server", help="the registry")
    for verb in (add, remove):
        verb.add_argument(
            "--organization", metavar="NAME", default=argparse.SUPPRESS, help="by default your own"
        )
    for verb in verbs.choices.values():
        add_global_options(verb, inherit=True)


def run(session: Session, args: argparse.Namespace) -> int:
    """Keep, list or forget logins."""
    return {"add": _add, "list": _list, "remove": _remove}[args.verb](session, args)


def _add(session: Session, args: argparse.Namespace) -> int:
    password = _password(from_stdin=args.password_stdin)
    login = session.client.send(
        image_calls.save_registry(args.server, args.username, password, args.organization)
    )
    if session.as_json:
        show_json(login.raw)
    else:
        print(f"{login.organization} logs in to {login.server} as {login.username}")
    return 0


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass("Password: ")
    else:
        raise UsageError("give --password-stdin: there is no terminal to ask on")
    if not password:
        raise UsageError("the password is empty")
    return password


def _list(session: Session, _args: argparse.Namespace) -> int:
    page = session.client.send(image_calls.list_registries())
    if session.as_json:
        show_json(page.raw)
        return 0
    show_table(
        ["REGISTRY", "USERNAME", "ORGANIZATION", "CHANGED", "BY"],
        [(r.server, r.username, r.organization, r.updated_at, r.updated_by) for r in page],
    )
    return 0


def _remove(session: Session, args: argparse.Namespace) -> int:
    login = session.client.send(image_calls.remove_registry(args.server, args.organization))
    if session.as_json:
        show_json(login.raw)
    else:
        print(f"{login.organization} no longer logs in to {login.server}")
    return 0


COMMANDS = {"registry": (arguments, run)}
