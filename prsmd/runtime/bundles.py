"""Finds the bundles of the embedded runtime: folders with a `bundle.toml`, named by references.

A bundle is what an image is to Docker. Its digest is over the content of its folder, so a bundle
that was edited is another image. References are compared with what the folders say and never
joined to a path, so none can lead out of the bundle folders. Runs nothing.

    references = ["company/legal-analyzer:v2.1"]   # besides the folder's own name
    command = ["{python}", "server.py"]            # {python}: the interpreter prsmd runs on

    [environment]
    THREADS = "2"
"""

import dataclasses
import hashlib
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prsmd.core.exhaustion import is_exhausted
from prsmd.domain.errors import ImageUnavailableError

from .base import Image

_FILE = "bundle.toml"
_IGNORED = "__pycache__"
_KEYS = {"references", "command", "environment"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One usable bundle. `references` has every name it answers to, its folder's first."""

    folder: Path
    references: tuple[str, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    digest: str
    size_bytes: int

    def image(self, reference: str) -> Image:
        """Return the bundle as the image that `reference` names."""
        return Image(
            reference=reference,
            digest=self.digest,
            id=self.digest,
            size_bytes=self.size_bytes,
            environment=self.environment,
        )


class Bundles:
    """The bundles in some folders. The first folder that has a reference wins."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)
        self._digests: dict[Path, tuple[object, str]] = {}

    def find(self, reference: str) -> Bundle | None:
        """Return the bundle that answers to `reference`."""
        wanted = {reference, reference.removesuffix(":latest")}
        return next((b for b in self.all() if wanted & set(b.references)), None)

    def by_digest(self, digest: str) -> Bundle:
        """Return the bundle with this content. ImageUnavailableError once it was changed."""
        for bundle in self.all():
            if bundle.digest == digest:
                return bundle
        raise ImageUnavailableError(
            f"no bundle has the content {digest[:19]} any more: it was changed or removed; "
            "update the deployment to use what is there now"
        )

    def all(self) -> Iterator[Bundle]:
        """Yield every usable bundle."""
        for folder in self._candidates():
            bundle = self._read(folder)
            if isinstance(bundle, Bundle):
                yield bundle

    def missing(self, reference: str) -> ImageUnavailableError:
        """Return the error for an unknown reference: what there is, and what is wrong with it."""
        known: list[str] = []
        problems: list[str] = []
        for folder in self._candidates():
            bundle = self._read(folder)
            if isinstance(bundle, Bundle):
                known.extend(bundle.references)
            else:
                problems.append(f"{folder.name}: {bundle}")
        places = ", ".join(str(folder) for folder in self._folders)
        text = f"no bundle is called {reference[:200]!r} in {places}; "
        text += f"there are: {', '.join(known)}" if known else "there are none"
        return ImageUnavailableError("; unusable: ".join([text, *problems]))

    def _candidates(self) -> Iterator[Path]:
        for folder in self._folders:
            if folder.is_dir():
                inside = sorted(path for path in folder.iterdir() if not path.is_symlink())
                yield from (path for path in inside if (path / _FILE).is_file())

    def _read(self, folder: Path) -> Bundle | str:
        """Return the bundle, or why it cannot be used."""
        try:
            content = tomllib.loads((folder / _FILE).read_text(encoding="utf-8"))
            problem = _problem(content)
            if problem:
                return problem
            digest, size_bytes = self._digest(folder)
        except (OSError, ValueError) as error:
            if is_exhausted(error):
                raise
            return str(error)
        command = (sys.executable if part == "{python}" else part for part in content["command"])
        return Bundle(
            folder=folder,
            references=(folder.name, *content.get("references", [])),
            command=tuple(command),
            environment=content.get("environment", {}),
            digest=digest,
            size_bytes=size_bytes,
        )

    def _digest(self, folder: Path) -> tuple[str, int]:
        files = sorted(_files(folder))
        stats = [path.lstat() for path in files]
        seen = [
            (str(p), s.st_mtime_ns, s.st_size, s.st_mode) for p, s in zip(files, stats, strict=True)
        ]
        size_bytes = sum(stat.st_size for stat in stats)
        known = self._digests.get(folder)
        if known is None or known[0] != seen:
            known = seen, _content_digest(folder, files)
            self._digests[folder] = known
        return known[1], size_bytes


def _problem(content: Mapping[str, Any]) -> str | None:
    unknown = content.keys() - _KEYS
    if unknown:
        return f"{_FILE} has unknown keys: {', '.join(sorted(unknown))}"
    command, references = content.get("command"), content.get("references", [])
    if not command or not _texts(command):
        return f"{_FILE} needs a command: a list of texts"
    if not _texts(references):
        return f"references in {_FILE} must be a list of texts"
    environment = content.get("environment", {})
    if not isinstance(environment, dict) or not _texts([*environment.values()]):
        return f"environment in {_FILE} must hold texts"
    return None


def _texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != _IGNORED]
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        yield from (Path(place) / name for name in (*names, *links))


def _content_digest(folder: Path, files: Sequence[Path]) -> str:
    """Return the SHA-256 over names, execute bits and contents; links count by where they lead."""
    total = hashlib.sha256()
    for path in files:
        if path.is_symlink():
            kind, content = "link", hashlib.sha256(os.fsencode(path.readlink())).digest()
        else:
            kind = "run" if path.lstat().st_mode & 0o100 else "file"
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
        total.update(f"{kind}\0{path.relative_to(folder)}\0".encode() + content)
    return f"sha256:{total.hexdigest()}"
