"""Keeps the secrets of running containers as files on the host, in memory, and nowhere else.

Each container has a folder of its own under one that only the daemon's user can enter; inside, the
files can be read by any user, for the container's own is another one. Folders have fresh names, so
that sweeping up after a crash can never meet one that is being filled. Blocking.
"""

import os
import secrets
import shutil
import stat
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from prsmd.domain.errors import EngineError

_IN_MEMORY = {"tmpfs", "ramfs"}
_MOUNTS = Path("/proc/self/mountinfo")


class SecretFiles:
    """The folders of one instance's containers."""

    def __init__(self, root: Path, instance: str) -> None:
        self._root = root
        self._mine = root / instance
        self._busy: set[Path] = set()
        self._lock = threading.Lock()

    def give(self, replica: str, values: Mapping[str, bytes]) -> Path:
        """Write the values and return their folder, which stays until `settle` and a sweep.

        EngineError where they would not be in memory alone, or others could come near them.
        """
        self._prepare()
        folder = self._mine / f"{replica}.{secrets.token_hex(8)}"
        with self._lock:
            self._busy.add(folder)
        try:
            folder.mkdir(mode=0o700)
            for name, value in values.items():
                _write(folder / name, value)
            folder.chmod(0o555)
        except OSError as error:
            self.take_back(folder)
            raise EngineError(f"secrets of {replica}: {error.strerror} in {self._mine}") from error
        return folder

    def settle(self, folder: Path) -> None:
        """Note that a launch has ended: a container has the folder now, or never will."""
        with self._lock:
            self._busy.discard(folder)

    def take_back(self, folder: Path) -> None:
        """Remove a folder that no container has."""
        _remove(folder)
        self.settle(folder)

    def forget(self, replica: str) -> None:
        """Remove what a container had that is gone."""
        for folder in self._mine.glob(f"{replica}.*"):
            _remove(folder)

    def settled(self) -> frozenset[Path]:
        """Return the folders whose launches have ended, in this life of the daemon or another."""
        with self._lock:
            try:
                return frozenset(self._mine.iterdir()) - self._busy
            except FileNotFoundError:
                return frozenset()

    def sweep(self, settled: Collection[Path], replicas: Collection[str]) -> None:
        """Remove those of the folders whose containers are not there.

        They must have been `settled` before it was looked which containers there are.
        """
        for folder in settled:
            if folder.name.rpartition(".")[0] not in replicas:
                _remove(folder)

    def _prepare(self) -> None:
        try:
            self._root.mkdir(mode=0o700, exist_ok=True)
            self._mine.mkdir(mode=0o700, exist_ok=True)
            for folder in (self._root, self._mine):
                found = folder.lstat()
                if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                    raise EngineError(f"{folder} for secrets is not a folder of prsmd's own")
                if found.st_mode & 0o077:
                    folder.chmod(0o700)
        except OSError as error:
            words = f"[runtime] secrets_dir {self._root} cannot be used: {error.strerror}"
            raise EngineError(words) from error
        if _kind_of_disk(self._root) not in _IN_MEMORY:
            raise EngineError(
                f"[runtime] secrets_dir {self._root} is on a disk: secrets may only be in memory;"
                " name a folder on a tmpfs, such as under /run or /dev/shm"
            )


def _write(path: Path, value: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(value)
        os.fchmod(file.fileno(), 0o444)


def _remove(folder: Path) -> None:
    try:
        folder.chmod(0o700)
    except FileNotFoundError:
        return
    shutil.rmtree(folder, ignore_errors=True)


def _kind_of_disk(folder: Path) -> str:
    """Return the type of the file system that a folder is on."""
    path, best, kind = str(folder.resolve()), "", ""
    for line in _MOUNTS.read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")
        inside = point in {"/", path} or path.startswith(f"{point}/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind
