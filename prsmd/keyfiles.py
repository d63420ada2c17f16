"""The daemon's own secrets: each from a file, a systemd credential, or made here once."""

import os
import secrets
from pathlib import Path

from prsmd.config import ConfigurationError, credential

_BYTES = 32


def secret(name: str, configured: Path | None, state_dir: Path) -> bytes:
    """Return the secret of this name.

    It is in the configured file, else in the credential `prsmd-NAME`, else in a file of the state
    folder that is made where there is none. ConfigurationError says why it cannot be used.
    """
    given = configured or credential(f"prsmd-{name}")
    path = given or state_dir / name
    setting = f"access.{name.replace('-', '_')}_file"
    if given is None and not path.exists():
        _write(path, secrets.token_bytes(_BYTES))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError([f"{setting}: {path}: {error.strerror}"]) from None
    if len(content) < _BYTES:
        raise ConfigurationError([f"{setting}: {path}: at least {_BYTES} bytes are needed"])
    return content


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, and that is whole or not there."""
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
