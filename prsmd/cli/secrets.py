"""Secrets. A value is read from a file, standard input or a prompt, never from the command line."""

import argparse
import getpass
import sys
from pathlib import Path

from prsm_sdk import secret_calls

from .options import add_global_options
from .output import show_json, show_table
from .session import Session, UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `secret`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="set|list|remove|rotate-key")
    put = verbs.add_parser("set", help="keep a value; it is asked for, or read from standard input")
    put.add_argument("name", help="what deployments call it")
    put.add_argument("--file", metavar="FILE", help="read the value from a file, byte for byte")
    verbs.add_parser("list", help="list secrets, without their values")
    remove = verbs.add_parser("remove", help="forget a secret that no model uses")
    remove.add_argument("name", help="the secret")
    remove.add_argument("--force", action="store_true", help="even while models use it")
    verbs.add_parser(
        "rotate-key", help="seal every secret and registry password with the next envelope key"
    )
    for verb in (put, remove):
        verb.add_argument(
            "--organization", metavar="NAME", default=argparse.SUPPRESS, help="by default your own"
        )
    for verb in verbs.choices.values():
        add_global_options(verb, inherit=True)


def run(session: Session, args: argparse.Namespace) -> int:
    """Keep, list or forget secrets, or change the key that seals them."""
    verbs = {"set": _set, "list": _list, "remove": _remove, "rotate-key": _rotate}
    return verbs[args.verb](session, args)


def _set(session: Session, args: argparse.Namespace) -> int:
    value = _value(args.file)
    secret = session.client.send(secret_calls.set_secret(args.name, value, args.organization))
    if session.as_json:
        show_json(secret.raw)
    else:
        print(f"{secret.name} of {secret.organization} is version {secret.version}")
        if secret.used_by:
            print(f"replicas of {', '.join(secret.used_by)} that start from now on get it")
    return 0


def _value(file: str | None) -> bytes:
    """Return the value: of the file as it is, else one line, or all, of what is typed or piped."""
    if file is not None:
        try:
            value = Path(file).read_bytes()
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    elif sys.stdin.isatty():
        value = getpass.getpass("Value: ").encode()
    else:
        # `echo value |` adds the end of a line, which is no part of it; a file is taken as it is.
        value = sys.stdin.buffer.read().removesuffix(b"\n").removesuffix(b"\r")
    if not value:
        raise UsageError("the value is empty")
    return value


def _list(session: Session, _args: argparse.Namespace) -> int:
    page = session.client.send(secret_calls.list_secrets())
    if session.as_json:
        show_json(page.raw)
        return 0
    show_table(
        ["SECRET", "VERSION", "BYTES", "ORGANIZATION", "USED BY", "CHANGED", "BY"],
        [
            (
                *(s.name, s.version, s.size_bytes, s.organization),
                *(", ".join(s.used_by), s.updated_at, s.updated_by),
            )
            for s in page
        ],
    )
    return 0


def _remove(session: Session, args: argparse.Namespace) -> int:
    call = secret_calls.remove_secret(args.name, args.organization, force=args.force)
    secret = session.client.send(call)
    if session.as_json:
        show_json(secret.raw)
    else:
        print(f"{secret.name} of {secret.organization} is gone")
    return 0


def _rotate(session: Session, _args: argparse.Namespace) -> int:
    done = session.client.send(secret_calls.rotate_key())
    if session.as_json:
        show_json(done.raw)
        return 0
    print(
        f"key {done.key_id} seals from now on; sealed anew: {done.resealed_secrets} secrets,"
        f" {done.resealed_registries} registry passwords"
    )
    if not done.key_made_here:
        print("the former key is no longer needed: take it out of the settings")
    return 0


COMMANDS = {"secret": (arguments, run)}
