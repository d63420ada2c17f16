"""The daemon's own secrets: each from a file, a systemd credential, or made here once."""

import os
import secrets
from pathlib import Path

from prsmd.config import ConfigurationError, credential

_BYTES = 32


def secret(name: str, configured: Path | None, state_dir: Path, needed_by: str = "") -> bytes:
    """Return the secret of this name.

    It is in the configured file, else in the credential `prsmd-NAME`, else in a file of the state
    folder that is made where there is none, unless something is `needed_by` the one that was there.
    ConfigurationError says why it cannot be used.
    """
    given = configured or credential(f"prsmd-{name}")
    path = given or state_dir / name
    setting = f"access.{name.replace('-', '_')}_file"
    if given is None and not path.exists():
        if needed_by:
            raise ConfigurationError([_missing(path, setting, needed_by)])
        _write(path, secrets.token_bytes(_BYTES))
    return _read(path, setting)


def _missing(path: Path, setting: str, needed_by: str) -> str:
    return (
        f"{setting}: {path} is missing, and {needed_by}. Put it back from a backup. To give it up"
        f" and begin with another: (umask 077; head -c {_BYTES} /dev/urandom > {path}), as the"
        " daemon's user"
    )


class EnvelopeKeys:
    """The envelope key, and the earlier ones that still open what was sealed with them.

    An operator's key is in a file or a credential, and so is the one before it; the daemon's own is
    in the state folder, with the next one beside it while everything is sealed anew.
    ConfigurationError says why one cannot be used.
    """

    def __init__(self, configured: Path | None, previous: Path | None, state_dir: Path) -> None:
        given = configured or credential("prsmd-envelope-key")
        former = previous or credential("prsmd-previous-envelope-key")
        self._own = state_dir / "envelope-key"
        self._next = state_dir / "envelope-key.next"
        self._given = given is not None
        self.path = given or self._own
        known = [_read(former, "access.previous_envelope_key_file")] if former else []
        present = secret("envelope-key", given, state_dir)
        paths = (self._own, self._next) if self._given else (self._next,)
        there = [_read(path, "state folder") for path in paths if path.exists()]
        self.unfinished = not self._given and bool(there)
        found = [*there, present, *known] if self.unfinished else [present, *there, *known]
        self.current, self.earlier = found[0], tuple(found[1:])

    def prepare(self) -> bytes | None:
        """Make the next key and keep it beside the present one; None where an operator does."""
        if self._given:
            return None
        if not self._next.exists():
            _write(self._next, secrets.token_bytes(_BYTES))
        return _read(self._next, "state folder")

    def adopt(self) -> None:
        """Let the next key take the present one's place: nothing needs that any more.

        Where an operator keeps the key, those that the daemon once kept go.
        """
        if not self._given:
            self._next.replace(self._own)
        else:
            self._own.unlink(missing_ok=True)
            self._next.unlink(missing_ok=True)
        _settle(self._own.parent)


def _read(path: Path, setting: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError([f"{setting}: {path}: {error.strerror}"]) from None
    if len(content) < _BYTES:
        raise ConfigurationError([f"{setting}: {path}: at least {_BYTES} bytes are needed"])
    return content


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, and that is whole or not there."""
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    _settle(path.parent)


def _settle(folder: Path) -> None:
    """Make sure that a change of names in a folder survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
