"""Seals values before they are stored, and opens them again. Knows nothing of what they are.

AES-256-GCM with a random 96-bit nonce for each value. A sealed value is bound to its place: one
that was copied to another row does not open there. No key ever reaches the database; which one
sealed a value stands at its beginning.
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
_SEAL_ID_BYTES = 16


class SealBrokenError(PrsmdError):
    """A stored value cannot be opened: another envelope key, or the row was changed or damaged."""


def new_seal_id() -> str:
    """Return a name for one sealed value, to be part of its place and never used again."""
    return secrets.token_hex(_SEAL_ID_BYTES)


class Sealer:
    """Seals with one envelope key, and opens what that one or an earlier one sealed.

    A key has at least 32 bytes.
    """

    def __init__(self, envelope_key: bytes, *earlier: bytes) -> None:
        self._key = _Key(envelope_key)
        self._known = {key.head: key for key in (*map(_Key, earlier), self._key)}

    @property
    def key_id(self) -> str:
        """The name of the key that seals: a few digits of its hash, as rows have it."""
        return self._key.name

    def knows(self, key_id: str) -> bool:
        """Tell whether what this key sealed can be opened."""
        return any(key.name == key_id for key in self._known.values())

    def has(self, envelope_key: bytes) -> bool:
        """Tell whether this is one of its keys."""
        return len(envelope_key) >= LEAST_KEY_BYTES and _Key(envelope_key).head in self._known

    def turn_to(self, envelope_key: bytes) -> None:
        """Seal with another key from now on; what earlier ones sealed can still be opened."""
        self._key = _Key(envelope_key)
        self._known[self._key.head] = self._key

    def forget_earlier(self) -> None:
        """Open only what the present key sealed from now on."""
        self._known = {self._key.head: self._key}

    def seal(self, plain: bytes, place: str) -> bytes:
        """Return the sealed value. `place` names its row and column; it is not kept in it."""
        return self._key.seal(plain, place)

    def again(self, sealed: bytes, place: str) -> bytes:
        """Return a sealed value sealed anew, for the same place, with the present key."""
        return self.seal(self.open(sealed, place), place)

    def open(self, sealed: bytes, place: str) -> bytes:
        """Return what was sealed for this place. SealBrokenError where that cannot be proven."""
        head = sealed[: len(self._key.head)]
        key = self._known.get(head)
        if key is None:
            raise SealBrokenError(
                f"{place} was sealed with another envelope key; restore the key that belongs to"
                " this state, or set the value again."
            )
        try:
            return key.open(sealed[len(head) :], place)
        except (InvalidTag, ValueError):
            raise SealBrokenError(
                f"{place} cannot be opened: its row was changed or damaged; set the value again."
            ) from None


class _Key:
    def __init__(self, envelope_key: bytes) -> None:
        if len(envelope_key) < LEAST_KEY_BYTES:
            raise ValueError(f"an envelope key has at least {LEAST_KEY_BYTES} bytes")
        derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"prsmd envelope key 1")
        key = derived.derive(envelope_key)
        self._cipher = AESGCM(key)
        mark = hashlib.sha256(b"mark" + key).digest()[:_MARK_BYTES]
        self.head, self.name = _VERSION + mark, mark.hex()

    def seal(self, plain: bytes, place: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return self.head + nonce + self._cipher.encrypt(nonce, plain, self.head + place.encode())

    def open(self, rest: bytes, place: str) -> bytes:
        nonce, content = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
        return self._cipher.decrypt(nonce, content, self.head + place.encode())
