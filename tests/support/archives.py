"""Archives of images in both forms, honest ones and ones with a single thing wrong."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Files = dict[str, bytes]


def digest(content: bytes) -> str:
    """Return the SHA-256 of some content in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def layer(**files: bytes) -> bytes:
    """Return an unpacked layer."""
    return tar(files)


def some_layer(size: int = 1000) -> bytes:
    """Return a layer that is like no other."""
    return layer(weights=os.urandom(size))


def config(layers: Sequence[bytes], **more: Any) -> bytes:
    """Return an image's configuration; its layers are given unpacked."""
    root = {"type": "layers", "diff_ids": [f"sha256:{digest(content)}" for content in layers]}
    content = {"architecture": "amd64", "os": "linux", "config": {"Env": ["A=b"]}, "rootfs": root}
    return json.dumps(content | more).encode()


def saved(name: str = "tests/saved:1", layers: Sequence[bytes] | None = None) -> Files:
    """Return the files of what `docker save` of an older engine writes."""
    layers = [some_layer()] if layers is None else layers
    settings = config(layers)
    paths = [f"{digest(content)}/layer.tar" for content in layers]
    entry = {"Config": f"{digest(settings)}.json", "RepoTags": [name], "Layers": paths}
    files = {f"{digest(settings)}.json": settings, "manifest.json": json.dumps([entry]).encode()}
    return files | dict(zip(paths, layers, strict=True))


def laid_out(
    name: str | None = "tests/laid-out:1",
    layers: Sequence[bytes] | None = None,
    *,
    compressed: bool = True,
    platform: Mapping[str, str] | None = None,
) -> Files:
    """Return the files of an OCI layout with one image."""
    layers = [some_layer()] if layers is None else layers
    settings = config(layers)
    packed = [gzip.compress(content, mtime=0) if compressed else content for content in layers]
    kind = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": descriptor(settings, f"{kind}.config.v1+json"),
        "layers": [
            descriptor(content, f"{kind}.layer.v1.tar" + ("+gzip" if compressed else ""))
            for content in packed
        ],
    }
    entry = descriptor(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")
    if name is not None:
        entry["annotations"] = {"org.opencontainers.image.ref.name": name}
    if platform is not None:
        entry["platform"] = platform
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        **blobs(settings, json.dumps(manifest).encode(), *packed),
    }


def blobs(*contents: bytes) -> Files:
    """Return contents under the names that an OCI layout gives them."""
    return {f"blobs/sha256/{digest(content)}": content for content in contents}


def descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    """Return how an OCI document refers to some content."""
    return {
        "mediaType": media_type,
        "digest": f"sha256:{digest(content)}",
        "size": len(content),
    }


def image_id(files: Files) -> str:
    """Return the id of the one image of an archive: the digest of its configuration."""
    [found] = [content for content in files.values() if content.startswith(b'{"architecture"')]
    return f"sha256:{digest(found)}"


def tar(files: Mapping[str, bytes], *members: tarfile.TarInfo) -> bytes:
    """Return a tar file of some files, then of members without content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for member in members:
            archive.addfile(member)
    return buffer.getvalue()


def written(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a tar file; return its path."""
    path.write_bytes(tar(files))
    return path
