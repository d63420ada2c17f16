"""The audit: tail, query, verify, export, public keys. A file is verified without any daemon."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from prsm_sdk import audit_calls
from prsm_sdk.audit_models import AuditRecord
from prsm_sdk.errors import ConfigurationError, PRSMError

from .options import add_global_options, count, moment
from .output import for_output, printable, show_json, show_table
from .session import Session, UsageError, note

if TYPE_CHECKING:
    from prsmd.core.signing import Trust
    from prsmd.core.transcript import Kept, Transcript

_NOT_WHOLE = 1
_LONGEST_LINE = 1 << 20
_PRIVATELY = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_FILTERS = {
    "principal": "who did it; a * at the end stands for anything, here and below",
    "action": "what was done, such as models.deploy or 'models.*'",
    "subject": "what it was done to",
    "outcome": "allowed or denied; of inferences, how they ended",
    "organization": "whose records, for administrators",
}
_LOGS = ("changes", "denials", "inferences")
_WHICH = "which log: changes, but denials with --outcome denied"
_COLUMNS = (
    "sequence", "at", "principal", "address", "organization", "action", "subject", "outcome",
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `audit`."""
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="tail|query|verify|export|public-key"
    )
    tail = verbs.add_parser("tail", help="show the last records")
    tail.add_argument("-f", "--follow", action="store_true", help="go on as records are written")
    tail.add_argument("-n", dest="limit", type=count, default=10, help="so many (10), at most 100")
    query = verbs.add_parser("query", help="look for records, newest first")
    _window(query)
    for verb in (tail, query):
        for name, meaning in _FILTERS.items():
            verb.add_argument(f"--{name}", dest=f"of_{name}", metavar="TEXT", help=meaning)
    verify = verbs.add_parser("verify", help="prove a log: the daemon's, or an export in a file")
    verify.add_argument("file", nargs="?", help="what `export` wrote; - reads standard input")
    verify.add_argument(
        "--public-key",
        metavar="FILE",
        action="append",
        help="PEM, from `public-key`, by a way that you trust; may be given several times",
    )
    verify.add_argument(
        "--head",
        metavar="SEQUENCE:HASH",
        type=_head,
        help="a record that you know of from elsewhere: the daemon's log must have it",
    )
    verify.add_argument(
        "--checkpoints", metavar="FILE", help="a copy of audit-checkpoints.jsonl kept elsewhere"
    )
    export = verbs.add_parser("export", help="write a log as JSON lines that prove themselves")
    export.add_argument("file", nargs="?", default="-", help="by default standard output")
    export.add_argument(
        "--organization",
        dest="of_organization",
        metavar="NAME",
        help="others' records as digests only",
    )
    export.add_argument(
        "--since", metavar="AGE|TIME", type=moment, help="from the last checkpoint before then"
    )
    verbs.add_parser("public-key", help="show the keys that exports are verified with")
    for name, verb in verbs.choices.items():
        if name != "public-key":
            verb.add_argument("--log", choices=_LOGS, help=_WHICH)
        add_global_options(verb, inherit=True)


def _window(query: argparse.ArgumentParser) -> None:
    """Add the arguments that say which part of a log is shown."""
    query.add_argument("--limit", type=count, default=20, help="so many (20), at most 100")
    query.add_argument("--offset", type=count, default=0, help="leave so many out")
    query.add_argument(
        "--before",
        metavar="SEQUENCE",
        type=count,
        help="only records before this one: the way to go on where a log is long",
    )
    for name in ("since", "until"):
        query.add_argument(f"--{name}", metavar="AGE|TIME", type=moment, help="10m ago, or a time")


def run(session: Session, args: argparse.Namespace) -> int:
    """Carry out one of the verbs."""
    verbs = {
        "tail": _tail,
        "query": _query,
        "verify": _verify,
        "export": _export,
        "public-key": _public_key,
    }
    return verbs[args.verb](session, args)


def _tail(session: Session, args: argparse.Namespace) -> int:
    filters = {name: getattr(args, f"of_{name}") for name in _FILTERS}
    page = session.client.send(audit_calls.records(args.log, filters, max(1, args.limit)))
    shown = list(page)[: args.limit]
    for record in reversed(shown):
        _show(session, record)
    if args.follow:
        after = page.items[0].sequence if page.items else 0
        for record in session.client.follow(audit_calls.follow_records(args.log, filters, after)):
            _show(session, record)
    return 0


def _query(session: Session, args: argparse.Namespace) -> int:
    filters = {name: getattr(args, f"of_{name}") for name in _FILTERS}
    filters |= {"since": args.since, "until": args.until, "before": args.before}
    call = audit_calls.records(args.log, filters, args.limit, args.offset)
    page = session.client.send(call)
    if session.as_json:
        show_json(page.raw)
        return 0
    show_table(
        [name.upper() for name in _COLUMNS],
        [tuple(getattr(record, name) or "-" for name in _COLUMNS) for record in page],
    )
    return 0


def _show(session: Session, record: AuditRecord) -> None:
    import json

    if session.as_json:
        print(json.dumps(record.raw, ensure_ascii=False), flush=True)
        return
    whence = f" from {record.address}" if record.address else ""
    who = f"{record.principal} ({record.organization}){whence}"
    details = json.dumps(record.details, ensure_ascii=False) if record.details else ""
    words = f"{who} {record.action} {record.subject} {record.outcome} {details}".rstrip()
    print(f"{record.sequence} {record.at} {printable(words)}", flush=True)


def _verify(session: Session, args: argparse.Namespace) -> int:
    if args.file is None:
        if args.public_key:
            raise UsageError("--public-key is for a file: name it")
        sequence, hashed = args.head or (None, None)
        if args.checkpoints:
            sequence, hashed = _newest(args.checkpoints, args.log or "changes")
        verdict = session.client.send(audit_calls.verify(args.log, sequence, hashed))
        return _tell(session, verdict.raw)
    if args.head is not None:
        raise UsageError("--head is for the daemon's own log; for a file give --checkpoints")
    if args.public_key is None:
        raise UsageError("a file is verified with --public-key FILE; `public-key` shows it")
    return _tell(session, _verify_file(args))


def _verify_file(args: argparse.Namespace) -> dict[str, Any]:
    """Return the verdict on an export, in the form of the daemon's own."""
    from prsmd.core.transcript import Transcript

    trust = _trust(args.public_key)
    kept = _checkpoints(args.checkpoints, trust) if args.checkpoints else []
    transcript = Transcript(trust.check, kept)
    for line in _lines(args.file):
        transcript.feed(line)
    verdict = transcript.verdict()
    told = [k.sequence for k in kept if (k.log, k.instance) == (verdict.log, transcript.instance)]
    if args.checkpoints and not told:
        note(f"{args.checkpoints} has no checkpoint of this log of {transcript.instance}")
    if max(told, default=0) > verdict.last and verdict.problem is None:
        note(f"checkpoints of after this export know of records up to {max(told)}")
    return _body(transcript)


def _body(transcript: "Transcript") -> dict[str, Any]:
    verdict = transcript.verdict()
    problem = verdict.problem
    return {
        "whole": problem is None,
        "log": verdict.log,
        "instance": transcript.instance,
        "organization": transcript.organization,
        "records": verdict.records,
        "foreign": verdict.foreign,
        "first": verdict.first,
        "last": verdict.last,
        "hash": verdict.head,
        "checkpoints": verdict.checkpoints,
        "signed_through": verdict.proven,
        "problem": problem
        and {
            "kind": problem.kind.value,
            "sequence": problem.sequence,
            "message": problem.message,
            "line": problem.line,
        },
    }


def _tell(session: Session, verdict: Any) -> int:
    problem = verdict.get("problem")
    if session.as_json:
        show_json(verdict)
    elif problem:
        line = f" (line {problem['line']})" if problem.get("line") else ""
        print(
            for_output(
                f"NOT WHOLE: {problem['kind']} at record {problem['sequence']}{line}:"
                f" {problem['message']}"
            )
        )
    else:
        foreign = verdict.get("foreign")
        others = f", {foreign} of other organizations by their digest" if foreign else ""
        print(
            f"whole: {verdict['records']} records{others}, {verdict['first']} to"
            f" {verdict['last']}, signed through {verdict['signed_through']}{_whose(verdict)}"
        )
    return _NOT_WHOLE if problem else 0


def _whose(verdict: Any) -> str:
    """Say which log was proven: that it is the one that was asked for, no signature can know."""
    if "instance" not in verdict:
        return ""
    organization = verdict["organization"]
    seen = "everything" if organization is None else f"what {organization} may see"
    return for_output(f"\n{seen} of the {verdict['log']} of {verdict['instance']}")


def _head(text: str) -> tuple[int, str]:
    sequence, _, hashed = text.partition(":")
    if not sequence.isdecimal() or not hashed:
        raise argparse.ArgumentTypeError("it is the number of a record, a colon and its hash")
    return int(sequence), hashed


def _newest(path: str, log: str) -> tuple[int, str]:
    """Return the newest place of a log in a copy of checkpoints that the operator kept."""
    import json

    found = (0, "")
    for line in _lines(path):
        try:
            said = json.loads(line)
            if (said["kind"], said["log"]) == ("checkpoint", log):
                found = max(found, (int(said["sequence"]), str(said["hash"])))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    if not found[0]:
        raise ConfigurationError(f"{path} holds no checkpoint of the log of {log}")
    return found


def _trust(paths: list[str]) -> "Trust":
    from prsmd.core.signing import Trust

    pems = []
    for path in paths:
        try:
            pems.append(Path(path).read_bytes())
            Trust(pems[-1])
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigurationError(f"{path}: {error}") from error
    return Trust(b"".join(pems))


def _checkpoints(path: str, trust: "Trust") -> "list[Kept]":
    """Return what a copy of checkpoints vouches for, in its order."""
    import json

    from prsmd.core.chain import signed_text
    from prsmd.core.transcript import Kept

    found = []
    for number, line in enumerate(_lines(path), 1):
        try:
            said = json.loads(line)
            signed = trust.check(said["key"], signed_text(said), said["signature"])
            kept = Kept(
                log=str(said["log"]),
                instance=str(said["instance"]),
                sequence=int(said["sequence"]),
                hash=str(said["hash"]),
                at=float(said["at"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            signed = False
        if not signed:
            note(f"{path}:{number} is no checkpoint that a trusted key signed; it is left out")
            continue
        found.append(kept)
    if not found:
        raise ConfigurationError(f"{path} holds no checkpoint that a trusted key signed")
    return found


def _lines(path: str) -> Iterator[bytes]:
    if path == "-":
        yield from _lines_of(sys.stdin.buffer)
        return
    try:
        with Path(path).open("rb") as file:
            yield from _lines_of(file)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error


def _lines_of(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(_LONGEST_LINE):
        yield line


def _export(session: Session, args: argparse.Namespace) -> int:
    call = audit_calls.export(args.log, args.of_organization, args.since)
    pieces = session.client.download(call)
    if args.file == "-":
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return 0
    path = Path(args.file)
    if not path.name:
        raise UsageError(f"{args.file!r} is no name of a file")
    partial = path.with_name(path.name + ".partial")
    try:
        with os.fdopen(os.open(partial, _PRIVATELY, 0o600), "wb") as file:
            file.writelines(pieces)
        partial.replace(path)
    except OSError as error:
        if isinstance(error, PRSMError):  # some of the client's are errors of the system too
            raise
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return 0


def _public_key(session: Session, _args: argparse.Namespace) -> int:
    keys = session.client.send(audit_calls.public_keys())
    if session.as_json:
        show_json(keys.raw)
    else:
        print(keys.public_keys.rstrip("\n"))
    return 0


COMMANDS = {"audit": (arguments, run)}
