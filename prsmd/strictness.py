"""Whether others can write or read what the daemon relies on, as sshd's StrictModes asks.

What others can write is refused, and so are secrets that others can read: who can put a record into
the state, or a rule into the settings, needs no key. The rest is a warning. Each names the command
that mends it.
"""

import dataclasses
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from prsmd.settings import Settings

_OTHERS_WRITE, _GROUP_WRITES = stat.S_IWOTH, stat.S_IWGRP
_OTHERS_READ, _GROUP_READS = stat.S_IROTH, stat.S_IRGRP
_SECRETS = ("audit-key", "pepper", "envelope-key", "envelope-key.next")
_FOLDERS = ("runs", "logs")
_STATE = (
    *("control.db", "control.db-wal", "control.db-shm", "control.head"),
    *("usage.db", "usage.db-wal", "usage.db-shm"),
    *("audit-checkpoints.jsonl", "audit-checkpoints.jsonl.1", "audit-public-keys.pem"),
    *("audit-successions.jsonl", "audit-successions.jsonl.1"),
    *_FOLDERS,
)
KEPT = (*_SECRETS, *_STATE)
# usage.db stops no start, whatever is in its place.
_WAITED_FOR = [name for name in KEPT if not name.startswith("usage.db") and name not in _FOLDERS]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a file, what to do, and whether the daemon refuses to start with it."""

    words: str
    refused: bool


def findings(settings: Settings, files: Sequence[Path]) -> list[Finding]:
    """Return what is wrong with the files of the state, of the settings, and that they name."""
    state, access = settings.daemon.state_dir, settings.access
    given = (
        *(access.pepper_file, access.audit_key_file, access.envelope_key_file),
        *(access.previous_envelope_key_file, settings.tcp.key),
    )
    trusted = (
        *(*settings.images.trusted_keys, *settings.images.signed_lists),
        *(settings.oidc.jwks_file, settings.tcp.cert),
    )
    found = [*_folder(state)]
    for name in _SECRETS:
        found += _own_secret(state / name)
    for name in _STATE:
        found += _written(state / name)
    for name in _WAITED_FOR:
        found += _other_kind(state / name, stat.S_ISREG, "file")
    for name in _FOLDERS:
        found += _other_kind(state / name, stat.S_ISDIR, "folder")
    for path in _named(given):
        found += (*_written(path), *_read(path))
    for path in (*files, *_named(trusted)):
        found += _written(path)
    for path in _named([settings.audit.checkpoint_copy]):
        found += (dataclasses.replace(each, refused=False) for each in _written(path))
    for folder in {path.parent for path in files}:
        there = _stat(folder)
        if there is not None and not there.st_mode & stat.S_ISVTX:
            found += _written(folder)
    return found


def _named(paths: Iterable[Path | None]) -> Iterator[Path]:
    return (path for path in paths if path is not None)


def _folder(path: Path) -> Iterator[Finding]:
    found = _stat(path)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        yield Finding(f"{path}: is no folder", refused=True)
        return
    yield from _written(path)
    if found is not None and found.st_mode & (_OTHERS_READ | stat.S_IXOTH):
        yield Finding(f"{path}: others can look into it: chmod 700 {path}", refused=False)
    for above in path.resolve().parents:
        there = _stat(above)
        if there is not None and there.st_mode & _OTHERS_WRITE and not there.st_mode & stat.S_ISVTX:
            words = f"{above}: others can write it, and so replace {path}: chmod o-w {above}"
            yield Finding(words, refused=True)


def _other_kind(path: Path, is_right: Callable[[int], bool], kind: str) -> Iterator[Finding]:
    """A FIFO in a file's place would be waited for until somebody writes into it."""
    found = _stat(path)
    if found is not None and not is_right(found.st_mode):
        words = f"{path}: is no {kind}: put back the one that belongs there, or move this one away"
        yield Finding(words, refused=True)


def _own_secret(path: Path) -> Iterator[Finding]:
    yield from _written(path)
    found = _stat(path)
    if found is not None and found.st_mode & (_OTHERS_READ | _GROUP_READS):
        yield Finding(f"{path}: others can read this secret: chmod 600 {path}", refused=True)


def _read(path: Path) -> Iterator[Finding]:
    """A secret that an operator keeps may be read by a group, such as the daemon's."""
    found = _stat(path)
    if found is not None and found.st_mode & _OTHERS_READ:
        yield Finding(f"{path}: everybody can read this secret: chmod o-r {path}", refused=True)


def _written(path: Path) -> Iterator[Finding]:
    found = _stat(path)
    if found is None:
        return
    if found.st_mode & _OTHERS_WRITE:
        yield Finding(f"{path}: everybody can write it: chmod go-w {path}", refused=True)
    elif found.st_mode & _GROUP_WRITES:
        # A user's own group is nobody else, with the umask of many systems.
        private = found.st_uid == os.geteuid() != 0 and found.st_gid == os.getegid()
        words = f"{path}: group {found.st_gid} can write it: chmod g-w {path}"
        yield Finding(words, refused=not private)
    if found.st_uid not in {0, os.geteuid()}:
        words = f"{path}: belongs to user {found.st_uid}, who can change it: chown root {path}"
        yield Finding(words, refused=os.geteuid() != 0)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # what is not there, or not to be seen, is told by who needs it
        return None
