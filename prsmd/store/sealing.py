"""Seals values before they are stored, and opens them again. Knows nothing of what they are.

AES-256-GCM with a random 96-bit nonce for each value. A sealed value is bound to its place: one
that was copied to another row does not open there. The key never reaches the database.
"""

import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from prsmd.domain.errors import PrsmdError

LEAST_KEY_BYTES = 32
_VERSION = b"\x01"
_MARK_BYTES = 4  # of the key that sealed, so that a wrong key is told from damage
_NONCE_BYTES = 12


class SealBrokenError(PrsmdError):
    """A stored value cannot be opened: another envelope key, or the row was changed or damaged."""


class Sealer:
    """Seals and opens with one envelope key, of which at least 32 bytes are needed."""

    def __init__(self, envelope_key: bytes) -> None:
        if len(envelope_key) < LEAST_KEY_BYTES:
            raise ValueError(f"an envelope key has at least {LEAST_KEY_BYTES} bytes")
        derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"prsmd envelope key 1")
        key = derived.derive(envelope_key)
        self._cipher = AESGCM(key)
        self._head = _VERSION + hashlib.sha256(b"mark" + key).digest()[:_MARK_BYTES]

    def seal(self, plain: bytes, place: str) -> bytes:
        """Return the sealed value. `place` names its row and column; it is not kept in it."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        bound = self._head + place.encode()
        return self._head + nonce + self._cipher.encrypt(nonce, plain, bound)

    def open(self, sealed: bytes, place: str) -> bytes:
        """Return what was sealed for this place. SealBrokenError where that cannot be proven."""
        head, rest = sealed[: len(self._head)], sealed[len(self._head) :]
        if head != self._head:
            raise SealBrokenError(
                f"{place} was sealed with another envelope key; restore the key that belongs to"
                " this state, or set the value again."
            )
        nonce, content = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, content, self._head + place.encode())
        except (InvalidTag, ValueError):
            raise SealBrokenError(
                f"{place} cannot be opened: its row was changed or damaged; set the value again."
            ) from None
