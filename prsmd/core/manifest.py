"""Reads and writes the signed list of the images that may run: text, and an Ed25519 signature.

    prsmd signed images 1
    issued 1769860800
    expires 1801396800
    sha256:0123…  company/legal:v2
    -- signed KEY SIGNATURE

Both are seconds since 1970; `expires` may be left out. Each further line is a digest (of a
registry's manifest, or an image id) and, for people only, a name. The signature is over every byte
before its line; KEY is the SHA-256 of the public key. Touches no file and no clock.
"""

import dataclasses
import re
from collections.abc import Sequence

from .signing import Signer, Trust

_TITLE = "prsmd signed images 1"
_CLOCKS_DIFFER = 86400  # seconds, of two machines' at most
_DIGEST = re.compile(r"(sha256:[0-9a-f]{64})(?: +\S.*)?")
_SIGNED = re.compile(r"-- signed ([0-9a-f]{64}) ([0-9a-f]{128})\n?")


class ManifestError(ValueError):
    """It is not a list that can be trusted now; the words say why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """One image of a list; `name` is for people."""

    digest: str
    name: str = ""


def read(content: bytes, trust: Trust, now: float) -> frozenset[str]:
    """Return the digests of a list that a trusted key signed, issued by now and not expired.

    Raises:
        ManifestError: it is none.
    """
    text, marker, rest = content.rpartition(b"-- signed ")
    signed = _SIGNED.fullmatch((marker + rest).decode("ascii", "replace"))
    if signed is None or not text.endswith(b"\n"):
        raise ManifestError("it does not end with a line of its signature")
    if signed[1] not in trust.fingerprints:
        raise ManifestError(f"its key {signed[1][:16]}… is none of [images] trusted_keys")
    if not trust.check(signed[1], text, signed[2]):
        raise ManifestError("its signature does not belong to its content")
    return _digests(text.decode(errors="replace").splitlines(), now)


def write(images: Sequence[Listed], signer: Signer, issued: float, expires: float | None) -> bytes:
    """Return a signed list. ManifestError for a digest that is none."""
    lines = [_TITLE, f"issued {int(issued)}"]
    lines += [] if expires is None else [f"expires {int(expires)}"]
    for image in images:
        line = f"{image.digest}  {image.name}".rstrip()
        if _DIGEST.fullmatch(line) is None or not line.isprintable():
            raise ManifestError(f"{line[:100]!r} is not a digest such as sha256:… and a name")
        lines.append(line)
    text = "".join(f"{line}\n" for line in lines).encode()
    return text + f"-- signed {signer.fingerprint} {signer.sign(text)}\n".encode()


def _digests(lines: Sequence[str], now: float) -> frozenset[str]:
    if not lines or lines[0] != _TITLE:
        raise ManifestError(f"it does not begin with {_TITLE!r}")
    found = set()
    for number, line in enumerate(lines[1:], start=2):
        word, _, value = line.partition(" ")
        if word == "expires" and _seconds(value, number) <= now:
            raise ManifestError(f"it expired at {value} seconds since 1970")
        if word == "issued" and _seconds(value, number) > now + _CLOCKS_DIFFER:
            raise ManifestError(f"it was issued at {value}, and here it is only {now:.0f}")
        if word in {"issued", "expires", ""}:
            continue
        match = _DIGEST.fullmatch(line)
        if match is None:
            raise ManifestError(f"line {number} is no digest")
        found.add(match[1])
    return frozenset(found)


def _seconds(text: str, number: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        raise ManifestError(f"line {number} is no time in seconds")
    return int(text)
