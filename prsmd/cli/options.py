"""The options that every command has, and the forms that option values take."""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def add_global_options(parser: argparse.ArgumentParser, *, inherit: bool) -> None:
    """Add the options that may stand before and after the command.

    With `inherit`, an option that is not given keeps the value it had before the command.
    """

    def default(value: object) -> Any:
        return argparse.SUPPRESS if inherit else value

    group = parser.add_argument_group("connection and output")
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--url", default=default(None), help="unix:///path, http:// or https:// (env PRSMD_URL)"
    )
    where.add_argument(
        "--socket", metavar="PATH", default=default(None), help="the daemon's Unix socket"
    )
    group.add_argument(
        "--api-key-file",
        metavar="FILE",
        default=default(None),
        help="file that holds the API key (env PRSMD_API_KEY holds the key itself)",
    )
    if "--organization" not in parser._option_string_actions:  # noqa: SLF001 - argparse has no other way
        group.add_argument(
            "--organization",
            metavar="NAME",
            default=default(None),
            help="for which organization this is, if you belong to several"
            " (env PRSMD_ORGANIZATION)",
        )
    group.add_argument(
        "-o",
        "--output",
        choices=["table", "json"],
        default=default("table"),
        help="table (the default) or json",
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=positive_seconds,
        default=default(None),
        help="give up after this long (default: 60s; 10m when waiting for a model; 5m for infer)",
    )


def positive_seconds(text: str) -> float:
    """Return seconds of `90`, `90s`, `5m`, `2h` or `30d`."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhd]?)", text)
    if match is None or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90, 90s, 5m, 2h or 30d")
    return float(match[1]) * _UNITS[match[2]]


def moment(text: str) -> float:
    """Return the epoch second of an age (`10m`: ten minutes ago) or of a time as in ISO 8601."""
    now = datetime.now(UTC)
    try:
        return (now - timedelta(seconds=positive_seconds(text))).timestamp()
    except argparse.ArgumentTypeError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        problem = f"{text!r} is neither an age such as 10m nor a time such as {now:%FT%TZ}"
        raise argparse.ArgumentTypeError(problem) from None


def pair(text: str) -> tuple[str, str]:
    """Return name and value of `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def json_values(pairs: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
    """Return pairs whose values are read as JSON where they are JSON, else as text."""
    return {name: _json_or_text(value) for name, value in pairs}


def count(text: str) -> int:
    """Return a number of things, 0 or more."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
