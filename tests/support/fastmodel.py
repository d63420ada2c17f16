"""The image of the fast model server that load tests run; see fast/model.c."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.support.engine import PrivateEngine

FAST_IMAGE = "prsmd-test/fast:1"
_SOURCE = Path(__file__).parent / "fast" / "model.c"
_BUILD = Path(__file__).parents[2] / ".cache" / "fastmodel"


def program() -> Path:
    """Return the compiled server, compiling it if its source changed."""
    found = _BUILD / hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    if not found.exists():
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise RuntimeError("the fast model needs a C compiler (Debian: apt-get install gcc)")
        _BUILD.mkdir(parents=True, exist_ok=True)
        fresh = _BUILD / f"{os.getpid()}.new"
        flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread")
        subprocess.run([compiler, *flags, "-o", fresh, _SOURCE], check=True)
        fresh.rename(found)
    return found


def build_image(engine: PrivateEngine) -> None:
    """Make the image on an engine, if it is not there."""
    with engine.client() as client:
        if not client.images.list(FAST_IMAGE):
            context = io.BytesIO()
            with tarfile.open(fileobj=context, mode="w") as tar:
                tar.add(program(), "model", filter=_anyones)
                tar.add(_SOURCE.with_name("Dockerfile"), "Dockerfile")
            context.seek(0)
            client.images.build(
                fileobj=context, custom_context=True, tag=FAST_IMAGE, network_mode="none"
            )


def _anyones(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode = 0o755
    return entry
