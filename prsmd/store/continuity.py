"""Whether control.db is the one that belongs to its folder, or was emptied, lost or put back.

A folder without a trace of an installation is a new one. Everything else that does not fit is
refused in words: models may run that an empty control.db would leave without a daemon.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from . import meta
from .checkpoint_file import CheckpointFile
from .connection import Tx
from .errors import StoreNotItsOwnError
from .head import NAME, Head
from .rows import one

CHECKPOINTS = "audit-checkpoints.jsonl"
TRACES = (
    *("usage.db", NAME, CHECKPOINTS, f"{CHECKPOINTS}.1", "audit-public-keys.pem"),
    *("audit-key", "pepper", "envelope-key", "envelope-key.next"),
)
_FOLDERS = ("runs", "logs")
_RESTORE = (
    "Put back what is missing, or the whole folder from a backup. To begin anew, with no model, key"
    " or record of before: prsmd --new-instance (it moves what is there aside). Models that still"
    " run are then nobody's: docs/operations.md says how to end them."
)
_ACCEPT = (
    "Put back the newest control.db with its -wal, or the whole folder from a backup. To go on with"
    " the one that is there, without what it lacks: prsmd --accept-state."
)


def refuse_vanished(path: Path, head: Head | None) -> None:
    """Refuse a control file that is missing or empty in a folder that had one.

    Raises:
        StoreNotItsOwnError: says what was found.
    """
    if path.exists() and path.stat().st_size:
        return
    what = "is empty" if path.exists() else "is missing"
    _refuse(path, what, head)


async def refuse_blank(tx: Tx, path: Path, head: Head | None) -> None:
    """Refuse a control file without an identity in a folder that had one: nothing was in it yet."""
    if not await _identified(tx):
        _refuse(path, "holds nothing", head)


async def refuse_other(tx: Tx, path: Path, head: Head | None) -> None:
    """Refuse a control file of another instance, or one that lacks commits that were made.

    Raises:
        StoreNotItsOwnError: says which.
    """
    instance, commits = await meta.instance_id(tx), await meta.commits(tx)
    if head is None:
        await _refuse_by_checkpoints(tx, path, instance)
    elif head.instance != instance:
        raise StoreNotItsOwnError(
            f"{path} is the state of {instance}, and {NAME} beside it of {head.instance}. {_ACCEPT}"
        )
    elif commits < head.commits:
        raise StoreNotItsOwnError(
            f"{path} has {commits} commits, and {head.commits} were made: {path.name}-wal was lost,"
            f" or an older copy was put back. {_ACCEPT}"
        )


async def _identified(tx: Tx) -> bool:
    if await one(tx, "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta'") is None:
        return False
    return await meta.get(tx, "instance_id") is not None


def _refuse(path: Path, what: str, head: Head | None) -> None:
    if head is not None and head.begins:
        return
    found = _traces(path)
    if found:
        raise StoreNotItsOwnError(
            f"{path} {what}, but the folder is not new: there is {', '.join(found)}"
            f"{_instances(path.parent, head)}. {_RESTORE}"
        )


def _traces(path: Path) -> list[str]:
    folder = path.parent
    wal = path.with_name(path.name + "-wal")
    found = [name for name in TRACES if os.path.lexists(folder / name)]
    found += [f"{name}/" for name in _FOLDERS if _has_any(folder / name)]
    return [wal.name, *found] if wal.exists() and wal.stat().st_size else found


def _has_any(folder: Path) -> bool:
    try:
        return any(entry.is_dir() for entry in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _instances(folder: Path, head: Head | None) -> str:
    named = {head.instance} if head is not None else set()
    named |= set(_signed_instances(folder / CHECKPOINTS))
    return f" (of {', '.join(sorted(named))})" if named else ""


def _signed_instances(path: Path) -> Iterable[str]:
    try:
        lines = path.read_bytes()[-65536:].split(b"\n")
    except OSError:
        return
    for line in lines:
        try:
            yield str(json.loads(line)["instance"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue


async def _refuse_by_checkpoints(tx: Tx, path: Path, instance: str) -> None:
    """Compare with the signed checkpoints, for a folder that has no head yet."""
    file = path.with_name(CHECKPOINTS)
    named = list(_signed_instances(file))
    if named and named[-1] != instance and instance not in named:
        raise StoreNotItsOwnError(
            f"{path} is the state of {instance}, {file.name} beside it of {named[-1]}. {_ACCEPT}"
        )
    signed = CheckpointFile(file).last(instance).get("changes")
    row = await one(tx, "SELECT sequence FROM audit_chain")
    if signed is not None and row is not None and row["sequence"] < signed.sequence:
        raise StoreNotItsOwnError(
            f"{path} ends at audit record {row['sequence']}, and record {signed.sequence} was made"
            f" and signed: {path.name}-wal was lost, or an older copy was put back. {_ACCEPT}"
        )
