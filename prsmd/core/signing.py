"""Ed25519 signatures of the audit's statements, and whom they are trusted from.

The same key and text always give the same signature; keys are read and kept by others.
"""

import contextlib
import hashlib
from collections.abc import Iterator

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

_SEED_BYTES = 32
_PEM_END = b"-----END PUBLIC KEY-----"
_SIGNATURE_HEX = 128


class Signer:
    """Signs with one private key: 32 bytes of seed, or a PEM file. ValueError for anything else."""

    def __init__(self, key: bytes) -> None:
        self._key = _private(key)
        public = self._key.public_key()
        self.fingerprint = fingerprint(public)
        self.public_pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, text: bytes) -> str:
        """Return the signature in hexadecimal."""
        return self._key.sign(text).hex()


class Trust:
    """The public keys whose signatures count, from a text of PEM blocks.

    ValueError where it has none, or one that is not Ed25519.
    """

    def __init__(self, pems: bytes) -> None:
        blocks = pems.split(_PEM_END)[:-1]
        with _understood():
            keys = [load_pem_public_key(block.strip() + b"\n" + _PEM_END) for block in blocks]
        if not keys:
            raise ValueError("it holds no public key in PEM form")
        self._keys: dict[str, Ed25519PublicKey] = {}
        for key in keys:
            if not isinstance(key, Ed25519PublicKey):
                raise ValueError("it holds a public key that is not Ed25519")  # noqa: TRY004 - content
            self._keys[fingerprint(key)] = key

    def raw(self, key: str) -> str | None:
        """Return the key of this fingerprint as its 32 bytes in hexadecimal; None without it."""
        public = self._keys.get(key)
        return None if public is None else _bytes_of(public).hex()

    @property
    def fingerprints(self) -> frozenset[str]:
        """The keys' fingerprints."""
        return frozenset(self._keys)

    def check(self, key: str, text: bytes, signature: str) -> bool:
        """Tell whether the trusted key of this fingerprint signed the text."""
        public = self._keys.get(key)
        if public is None or len(signature) != _SIGNATURE_HEX:
            return False
        try:
            public.verify(bytes.fromhex(signature), text)
        except (InvalidSignature, ValueError):
            return False
        return True


def fingerprint(public: Ed25519PublicKey) -> str:
    """Return the name of a public key: the SHA-256 of its 32 bytes, in hexadecimal."""
    return hashlib.sha256(_bytes_of(public)).hexdigest()


def _bytes_of(public: Ed25519PublicKey) -> bytes:
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def fingerprint_of(public: str) -> str | None:
    """Return the name of a public key of 32 bytes in hexadecimal; None for what is none."""
    key = _raw(public)
    return None if key is None else fingerprint(key)


def check_raw(public: str, text: bytes, signature: str) -> bool:
    """Tell whether the public key of 32 bytes in hexadecimal signed the text."""
    key = _raw(public)
    if key is None or len(signature) != _SIGNATURE_HEX:
        return False
    try:
        key.verify(bytes.fromhex(signature), text)
    except (InvalidSignature, ValueError):
        return False
    return True


def pem_of(public: str) -> bytes:
    """Return a public key of 32 bytes in hexadecimal as PEM. ValueError for what is none."""
    key = _raw(public)
    if key is None:
        raise ValueError("it is not an Ed25519 public key")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _raw(public: str) -> Ed25519PublicKey | None:
    if len(public) != 2 * _SEED_BYTES:
        return None
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    except ValueError:
        return None


def _private(key: bytes) -> Ed25519PrivateKey:
    if len(key) == _SEED_BYTES:
        return Ed25519PrivateKey.from_private_bytes(key)
    if not key.lstrip().startswith(b"-----BEGIN"):
        raise ValueError("it is neither a PEM file nor 32 bytes")
    with _understood():
        loaded = load_pem_private_key(key, password=None)
    if not isinstance(loaded, Ed25519PrivateKey):
        raise ValueError("it is not an Ed25519 key")  # noqa: TRY004 - the file's content is wrong
    return loaded


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """Raise ValueError for a key that is encrypted, or of a kind that nobody knows here."""
    try:
        yield
    except (UnsupportedAlgorithm, TypeError) as error:
        raise ValueError(f"it holds a key that cannot be used: {error}") from error
