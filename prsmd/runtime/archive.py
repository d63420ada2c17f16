"""Verifies an archive of images before any engine sees it: `docker save`'s form or an OCI layout.

Everything that is named by a digest must be what its name says; layers are unpacked (and thrown
away) to learn their true size and content. What an engine is given in the end is a tar file written
here, in the one form that all engines read, with nothing in it but what was verified.
"""

import dataclasses
import hashlib
import json
import platform
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from prsmd.domain.errors import InvalidInputError
from prsmd.domain.image import familiar

from . import tar_index
from .references import is_reference
from .tar_index import Span, TarIndex, refused

_LARGEST_DOCUMENT = 4 << 20
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_OLD_CONFIG = re.compile(r"([0-9a-f]{64})\.json")
_INDEXES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_PROOF = "vnd.docker.reference.type"  # of an entry that only says something about another
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_UNREADABLE = {b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_GZIP = 31  # what zlib takes to mean a gzip header and the largest window
_PIECE = 1 << 20
_DEEPEST_INDEX = 4
_MOST_IMAGES = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedImage:
    """One verified image. `id` is the digest of its configuration; it can have no reference."""

    id: str
    references: tuple[str, ...]
    config: Span
    layers: tuple[Span, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A verified archive. `unpacked_bytes` is what its layers take when they are unpacked."""

    path: Path
    images: tuple[ArchivedImage, ...]
    unpacked_bytes: int

    def tar_bytes(self) -> int:
        """Return the length of `tar`."""
        members = self._members().values()
        return tar_index.tar_size(len(m) if isinstance(m, bytes) else m.size for m in members)

    def tar(self) -> Iterator[bytes]:
        """Yield what an engine is given: a tar file in the form of `docker save`."""
        return tar_index.written(self.path, self._members())

    def _members(self) -> Mapping[str, Span | bytes]:
        manifest, members = [], dict[str, Span | bytes]()
        for image in self.images:
            config = f"{image.id.removeprefix('sha256:')}.json"
            layers = [f"{layer.offset}.tar" for layer in image.layers]
            names = list(image.references) or None
            manifest.append({"Config": config, "RepoTags": names, "Layers": layers})
            members[config] = image.config
            members |= zip(layers, image.layers, strict=True)
        return {"manifest.json": json.dumps(manifest).encode(), **members}


def verify(path: Path, most_unpacked_bytes: int, name: str | None = None) -> Archive:
    """Return what the archive at `path` holds. Blocks for as long as reading it takes.

    Its layers may take so many bytes when unpacked. `name` is given to the only image in place of
    its own names. InvalidInputError says what is wrong with the archive.
    """
    with path.open("rb") as file:
        index = tar_index.read_index(file, path.stat().st_size)
        reading = _Reading(file, index, most_unpacked_bytes)
        if "manifest.json" in index.files:
            found = list(_saved(reading))
        elif "index.json" in index.files:
            found = list(_laid_out(reading))
        else:
            raise refused(
                "holds no image: neither manifest.json (docker save) nor index.json (OCI)"
            )
        reading.check_names()
    if not found:
        raise refused("holds no image")
    if len(found) > _MOST_IMAGES:
        raise refused(f"holds more than {_MOST_IMAGES} images")
    return Archive(
        path=path,
        images=_named(found, name),
        unpacked_bytes=reading.unpacked_bytes,
    )


class _Reading:
    """One pass over an archive: each file is read once, whatever refers to it."""

    def __init__(self, file: BinaryIO, index: TarIndex, most_unpacked_bytes: int) -> None:
        self.index = index
        self.unpacked_bytes = 0
        self._file = file
        self._most = most_unpacked_bytes
        self._seen: dict[Span, tuple[str, str]] = {}

    def check_names(self) -> None:
        """Refuse blobs that are not what their names say, referred to or not."""
        for name, span in self.index.files.items():
            blob = _BLOB.fullmatch(name)
            if blob is not None and self._digest(span) != blob[1]:
                raise refused(f"holds {name[:23]}… whose content is not what its name says")

    def blob(self, digest: object, size: object = None) -> Span:
        """Return the file that a digest of an OCI layout names."""
        named = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
        if named is None:
            raise refused(f"refers to {str(digest)[:100]!r}, which is no sha256 digest")
        span = self.index.files.get(f"blobs/sha256/{named[1]}")
        if span is None:
            raise refused(f"lacks the blob {named[0][:19]}…, which it refers to")
        if size is not None and size != span.size:
            raise refused(f"holds the blob {named[0][:19]}… in another size than it says")
        return span

    def member(self, name: object) -> Span:
        """Return the file of a name, also behind one link, as `docker save` makes them."""
        if not isinstance(name, str):
            raise refused("refers to a file by something that is no name")
        target = name
        if name in self.index.links:
            up, _, target = self.index.links[name].partition("../")
            if up or ".." in target.split("/") or name.count("/") != 1:
                raise refused(f"holds {name[:100]!r}, a link that leads where none may")
        span = self.index.files.get(target)
        if span is None:
            raise refused(f"lacks the file {name[:100]!r}, which it refers to")
        return span

    def document(self, span: Span, what: str) -> Any:
        """Return a JSON file's content."""
        if span.size > _LARGEST_DOCUMENT:
            raise refused(f"has {what} of more than {_LARGEST_DOCUMENT} bytes")
        try:
            return json.loads(b"".join(tar_index.chunks(self._file, span)))
        except (ValueError, RecursionError):
            raise refused(f"has {what} that is not valid JSON") from None

    def config(self, span: Span) -> tuple[str, Sequence[Any]]:
        """Return an image's id and the digests of its unpacked layers."""
        content = self.document(span, "an image's configuration")
        root = content.get("rootfs") if isinstance(content, dict) else None
        layers = root.get("diff_ids") if isinstance(root, dict) else None
        if not isinstance(layers, list):
            raise refused("has an image's configuration without a list of its layers")
        return f"sha256:{self._digest(span)}", layers

    def check_layer(self, span: Span, expected: object) -> None:
        """Refuse a layer whose unpacked content is not what the image's configuration says."""
        if f"sha256:{self._hashes(span)[1]}" != expected:
            raise refused(f"holds a layer that is not the one its image names, {expected!s:.19}…")

    def _digest(self, span: Span) -> str:
        if span in self._seen:
            return self._seen[span][0]
        total = hashlib.sha256()
        for chunk in tar_index.chunks(self._file, span):
            total.update(chunk)
        return total.hexdigest()

    def _hashes(self, span: Span) -> tuple[str, str]:
        """Return the digests of a file as it is and as it is when unpacked."""
        if span not in self._seen:
            raw, unpacked = hashlib.sha256(), hashlib.sha256()
            for content in self._unpacked(tar_index.chunks(self._file, span), raw.update):
                unpacked.update(content)
                self.unpacked_bytes += len(content)
                if self.unpacked_bytes > self._most:
                    raise refused(f"unpacks to more than the {self._most} bytes that are accepted")
            self._seen[span] = raw.hexdigest(), unpacked.hexdigest()
        return self._seen[span]

    def _unpacked(self, pieces: Iterator[bytes], note: Callable[[bytes], None]) -> Iterator[bytes]:
        """Yield a layer unpacked, in pieces that stay small whatever it unpacks to."""
        inflater: _Inflater | None = None
        for number, piece in enumerate(pieces):
            note(piece)
            if number == 0:
                _refuse_unreadable(piece)
                inflater = _Inflater() if piece.startswith(b"\x1f\x8b") else None
            if inflater is None:
                yield piece
            else:
                yield from inflater.feed(piece)
        if inflater is not None and not inflater.whole:
            raise refused("holds a compressed layer that is not whole")


class _Inflater:
    """Undoes gzip, also of several parts one after another, in pieces of bounded size."""

    def __init__(self) -> None:
        self._part = zlib.decompressobj(_GZIP)

    @property
    def whole(self) -> bool:
        return self._part.eof

    def feed(self, piece: bytes) -> Iterator[bytes]:
        try:
            more = False
            while piece or more:
                if piece and self._part.eof:
                    self._part = zlib.decompressobj(_GZIP)
                content = self._part.decompress(piece, _PIECE)
                yield content
                piece = self._part.unused_data or self._part.unconsumed_tail
                more = len(content) == _PIECE and not self._part.eof
        except zlib.error:
            raise refused("holds a compressed layer that is damaged") from None


def _refuse_unreadable(beginning: bytes) -> None:
    for magic, method in _UNREADABLE.items():
        if beginning.startswith(magic):
            raise refused(
                f"holds a layer compressed with {method}, which cannot be verified here;"
                " save the image with gzip or uncompressed layers"
            )


def _saved(reading: _Reading) -> Iterator[ArchivedImage]:
    """Yield the images of what `docker save` writes."""
    manifest = reading.document(reading.index.files["manifest.json"], "a manifest.json")
    if not isinstance(manifest, list) or not all(isinstance(entry, dict) for entry in manifest):
        raise refused("has a manifest.json that is no list of images")
    for entry in manifest:
        path, layers = entry.get("Config"), entry.get("Layers")
        names = entry.get("RepoTags") or []
        if not isinstance(layers, list) or not isinstance(names, list):
            raise refused("has a manifest.json whose entries are not as `docker save` writes them")
        config = reading.member(path)
        image = _image(reading, config, [reading.member(layer) for layer in layers], names)
        named = _OLD_CONFIG.fullmatch(path)
        if named is not None and image.id != f"sha256:{named[1]}":
            raise refused(f"holds {path[:16]}… whose content is not what its name says")
        yield image


def _laid_out(reading: _Reading) -> Iterator[ArchivedImage]:
    """Yield the images of an OCI layout that are for this machine."""
    others: list[str] = []
    some = False
    for entry, names in _manifests(reading, reading.index.files["index.json"], (), 0):
        wanted = entry.get("platform") or {}
        system = f"{wanted.get('os', 'linux')}/{wanted.get('architecture', _architecture())}"
        if system != f"linux/{_architecture()}":
            others.append(system[:40])
            continue
        some = True
        manifest = reading.document(reading.blob(entry["digest"]), "an image's manifest")
        parts = manifest.get("layers") if isinstance(manifest, dict) else None
        head = manifest.get("config") if isinstance(manifest, dict) else None
        if not isinstance(head, dict) or not isinstance(parts, list):
            raise refused("has an image's manifest without configuration or layers")
        if not all(isinstance(part, dict) for part in parts):
            raise refused("has an image's manifest with something that is no layer")
        layers = [reading.blob(part.get("digest"), part.get("size")) for part in parts]
        yield _image(reading, reading.blob(head.get("digest"), head.get("size")), layers, names)
    if others and not some:
        raise refused(
            f"holds no image for linux/{_architecture()}, only for {', '.join(others[:5])}"
        )


def _manifests(
    reading: _Reading, span: Span, names: Sequence[str], depth: int
) -> Iterator[tuple[Mapping[str, Any], Sequence[str]]]:
    """Yield the entries of an index, and of indexes in it, that name images."""
    content = reading.document(span, "an index")
    entries = content.get("manifests") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise refused("has an index that is no list of images")
    if depth > _DEEPEST_INDEX or len(entries) > _MOST_IMAGES:
        raise refused("has an index that is nested too deeply or too long")
    for entry in entries:
        notes = entry.get("annotations") or {}
        if not isinstance(notes, dict) or not isinstance(entry.get("platform") or {}, dict):
            raise refused("has an index whose entries are not as OCI describes them")
        inner = reading.blob(entry.get("digest"), entry.get("size"))
        here = _annotated(notes) or names
        if entry.get("mediaType") in _INDEXES:
            yield from _manifests(reading, inner, here, depth + 1)
        elif _PROOF not in notes:
            yield entry, here


def _annotated(notes: Mapping[str, Any]) -> Sequence[str]:
    """Return the full name that an entry's annotations give it; a bare tag is none."""
    for key in (_NAME, _REF_NAME):
        name = notes.get(key)
        if isinstance(name, str) and (":" in name or "/" in name):
            return [name]
    return []


def _image(
    reading: _Reading, config: Span, layers: Sequence[Span], names: Sequence[object]
) -> ArchivedImage:
    id_, expected = reading.config(config)
    if len(expected) != len(layers):
        raise refused(f"holds an image of {len(expected)} layers with {len(layers)} of them")
    for layer, digest in zip(layers, expected, strict=True):
        reading.check_layer(layer, digest)
    texts = tuple(str(name) for name in names)
    return ArchivedImage(id=id_, references=texts, config=config, layers=tuple(layers))


def _named(images: Sequence[ArchivedImage], name: str | None) -> tuple[ArchivedImage, ...]:
    """Return the images under usable names: their own, or the one given to the only one."""
    if name is not None and len({image.id for image in images}) > 1:
        raise InvalidInputError.field("name", f"fits one image; the archive has {len(images)}")
    given: set[str] = set()
    named = []
    for image in images[:1] if name is not None else images:
        texts = image.references if name is None else (name,)
        for text in texts:
            if not is_reference(text) or "@" in text or text in given:
                raise refused(f"names an image {text[:100]!r}, which cannot be its name")
            given.add(text)
        named.append(dataclasses.replace(image, references=tuple(map(familiar, texts))))
    return tuple(named)


def _architecture() -> str:
    return _MACHINES.get(platform.machine(), platform.machine())
