"""Images: load an archive, list, prune."""

import argparse
import gzip
import re
import sys
from pathlib import Path
from typing import BinaryIO, cast

from prsm_sdk import image_calls
from prsm_sdk.image_models import Image, LoadedImage, PrunedImage
from prsm_sdk.upload import Upload

from .options import add_global_options, count
from .output import show_json, show_table
from .session import Session, UsageError, note

_GZIP = b"\x1f\x8b"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `image`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="load|list|prune")
    load = verbs.add_parser(
        "load", help="load an archive: what `docker save` writes, or an OCI layout as tar"
    )
    load.add_argument("file", help="the archive, also gzipped; - reads standard input")
    load.add_argument("--digest", metavar="sha256:…", help="what the archive's SHA-256 must be")
    load.add_argument("--name", metavar="NAME:TAG", help="a name for the only image in it")
    verbs.add_parser("list", help="list the images that are here and who uses them")
    prune = verbs.add_parser("prune", help="remove the images that prsmd brought and nobody needs")
    prune.add_argument(
        "--keep-revisions",
        metavar="N",
        type=count,
        help="keep those of each model's last N revisions (default: as configured)",
    )
    prune.add_argument("--dry-run", action="store_true", help="only show what would go")
    for verb in verbs.choices.values():
        add_global_options(verb, inherit=True)


def run(session: Session, args: argparse.Namespace) -> int:
    """Load, list or prune images."""
    return {"load": _load, "list": _list, "prune": _prune}[args.verb](session, args)


def _load(session: Session, args: argparse.Namespace) -> int:
    if args.digest is not None and re.fullmatch(r"sha256:[0-9a-f]{64}", args.digest) is None:
        raise UsageError("--digest is of the form sha256: and 64 digits")
    archive = _archive(args.file)
    result = session.client.send(image_calls.load_images(archive, args.digest, args.name))
    if session.as_json:
        show_json(result.raw)
        return 0
    show_table(["IMAGE", "DIGEST", "SIZE"], [_loaded_row(image) for image in result.images])
    for image in result.images:
        if image.replaced_digest is not None:
            users = ", ".join(
                f"{use.model_id} revision {use.revision}" for use in image.still_run_by
            )
            note(
                f"{image.reference} meant {image.replaced_digest[:80]} before;"
                f" {users or 'nobody'} {'goes on with that' if users else 'uses that'}"
            )
    return 0


def _archive(name: str) -> Upload:
    """Return what is sent: a path, standard input, or the content of a gzipped file."""
    if name == "-":
        return Upload(sys.stdin.buffer)
    path = Path(name)
    with Upload(path).opened() as (file, _):
        if file.read(2) != _GZIP:
            return Upload(path)
    return Upload(cast("BinaryIO", gzip.open(path, "rb")))


def _list(session: Session, _args: argparse.Namespace) -> int:
    page = session.client.send(image_calls.list_images())
    if session.as_json:
        show_json(page.raw)
        return 0
    show_table(
        ["IMAGE", "DIGEST", "SIZE", "CAME", "USED BY", "STAYS FOR"], [_row(image) for image in page]
    )
    return 0


def _prune(session: Session, args: argparse.Namespace) -> int:
    call = image_calls.prune_images(args.keep_revisions, dry_run=args.dry_run)
    result = session.client.send(call)
    if session.as_json:
        show_json(result.raw)
        return 0
    show_table(["IMAGE", "SIZE"], [_pruned_row(image) for image in result.removed])
    verb = "would go" if result.dry_run else "went"
    note(f"{len(result.removed)} images {verb}, at most {_megabytes(result.freed_bytes)}")
    return 0


def _row(image: Image) -> tuple[object, ...]:
    came = image.origin and f"{image.origin} {image.brought_at or ''}".strip()
    return (
        image.references or image.id[:19],
        tuple(_short(digest) for digest in image.digests),
        _megabytes(image.size_bytes),
        came,
        tuple(f"{use.model_id} r{use.revision}" for use in image.used_by),
        image.kept_for or "nothing: a prune removes it",
    )


def _loaded_row(image: LoadedImage) -> tuple[object, ...]:
    return image.reference, image.digest, _megabytes(image.size_bytes)


def _pruned_row(image: PrunedImage) -> tuple[object, ...]:
    return image.names or image.id[:19], _megabytes(image.size_bytes)


def _short(digest: str) -> str:
    """Return the digest alone, shortened: its repository stands beside it already."""
    return digest.rpartition("@")[2][:19]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


COMMANDS = {"image": (arguments, run)}
