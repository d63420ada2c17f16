"""Ask a model."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from prsm_sdk import calls

from .options import json_values, pair
from .output import show_json
from .session import Session, UsageError, note

_BODY_FIELDS = {"inputs", "parameters"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infer`."""
    parser.add_argument("model", help="model id, model name or deployment id")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--text", metavar="TEXT", help="short for --inputs '{\"text\": TEXT}'")
    source.add_argument("--inputs", metavar="JSON", help="the inputs")
    source.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        help='JSON: the inputs, or {"inputs": ..., "parameters": ...}; - or nothing: stdin',
    )
    parser.add_argument(
        "--param",
        metavar="NAME=VALUE",
        type=pair,
        action="append",
        default=[],
        help="parameter, read as JSON where it is JSON; repeatable",
    )


def run(session: Session, args: argparse.Namespace) -> int:
    """Ask a model and print what it answers."""
    inputs, parameters = _asked(args)
    parameters = {**parameters, **json_values(args.param)}
    call = calls.infer(args.model, inputs, parameters or None)
    result = session.client.send(call)
    if session.as_json:
        show_json(result.raw)
        return 0
    show_json(result.outputs)
    if sys.stderr.isatty() and result.metadata.inference_time_ms is not None:
        version = result.metadata.model_version
        took = f"{result.metadata.inference_time_ms:g} ms"
        note(f"({took}, version {version})" if version else f"({took})")
    return 0


def _asked(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Return inputs and parameters."""
    if args.text is not None:
        return {"text": args.text}, {}
    if args.inputs is not None:
        return _parsed(args.inputs, "--inputs"), {}
    if args.file in {None, "-"}:
        if sys.stdin.isatty():
            raise UsageError("say what to ask: --text, --inputs, -f FILE, or JSON on stdin")
        body = _parsed(sys.stdin.read(), "stdin")
    else:
        body = _parsed(_content(args.file), args.file)
    if isinstance(body, dict) and "inputs" in body and set(body) <= _BODY_FIELDS:
        return body["inputs"], body.get("parameters") or {}
    return body, {}


def _content(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name} cannot be read: {error}") from error


def _parsed(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{source} is not JSON ({error}); plain text goes with --text") from error


COMMANDS = {"infer": (arguments, run)}
