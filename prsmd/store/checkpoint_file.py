"""The file beside the state that has a line for each signed checkpoint of the audit logs.

It is there to be copied elsewhere. Every line is on the disk when `append` returns.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from prsmd.core.signing import Signer, Trust

from .attestations import Checkpoint

_ROTATE_BYTES = 16 * 1024**2
_TAIL_BYTES = 64 * 1024


class CheckpointFile:
    """Appends lines; beyond 16 MiB the file is moved aside to `FILE.1`. Calls block on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines, given without their newlines. OSError when the disk refuses."""
        if self.path.exists() and self.path.stat().st_size > _ROTATE_BYTES:
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        with os.fdopen(os.open(self.path, flags, 0o600), "ab") as file:
            if _ends_in_half_a_line(file.fileno()):
                file.write(b"\n")
            file.writelines(line + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())

    def last(self, instance: str) -> dict[str, Checkpoint]:
        """Return the last checkpoint of each log of an instance that the file's end has.

        Half a line counts not. Signatures are not looked at.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self.path.stat().st_size - _TAIL_BYTES))
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return {}
        found: dict[str, Checkpoint] = {}
        for line in lines:
            try:
                said = json.loads(line)
                if said["instance"] == instance:
                    found[str(said["log"])] = Checkpoint.of(said)
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        return found


def _ends_in_half_a_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def keep_public_key(path: Path, signer: Signer) -> bytes:
    """Return the public keys that ever signed here, the signer's first, and keep them in a file.

    So checkpoints of before a change of the key can still be checked.
    """
    known = path.read_bytes() if path.exists() else b""
    if known and signer.fingerprint in Trust(known).fingerprints:
        return known
    content = signer.public_pem + known
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
    return content
