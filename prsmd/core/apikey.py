"""The form of API keys: `prsm_<id>_<secret><checksum>`.

The id finds the row, the secret is 160 random bits, the checksum refuses typos before any look-up.
"""

import hashlib
import hmac
import re

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
ID_LENGTH = 10
SECRET_LENGTH = 32  # of 5 bits each: 160 bits
_CHECKSUM_LENGTH = 6  # 30 bits
_WHOLE = re.compile(r"(prsm(?:_|%5f)[0-9a-z]{1,64}(?:_|%5f))[0-9a-z]+", re.IGNORECASE)


def format_key(key_id: str, secret: str) -> str:
    """Return the text that a client is given, once."""
    return f"prsm_{key_id}_{secret}{_checksum(key_id, secret)}"


def parse_key(text: str) -> tuple[str, str] | None:
    """Return (id, secret), or None for a text that cannot be a key."""
    parts = text.split("_")
    if len(parts) != 3 or parts[0] != "prsm" or len(parts[2]) != SECRET_LENGTH + _CHECKSUM_LENGTH:
        return None
    secret, checksum = parts[2][:SECRET_LENGTH], parts[2][SECRET_LENGTH:]
    if not text.isascii() or not hmac.compare_digest(checksum, _checksum(parts[1], secret)):
        return None
    return parts[1], secret


def is_key_id(text: str) -> bool:
    """Tell whether this can be a key's id; a whole key, pasted by mistake, is none."""
    return len(text) == ID_LENGTH and set(text) <= set(_ALPHABET)


def without_secrets(text: str) -> str:
    """Return a text in which of each key, whole or cut off, only the id is left.

    Clients put keys where they do not belong, in paths and names: logs and records keep none.
    """
    return _WHOLE.sub(r"\1***", text) if "prsm" in text.lower() else text


def key_digest(pepper: bytes, secret: str) -> bytes:
    """Return what is stored of a secret: HMAC-SHA-256(pepper, secret)."""
    return hmac.digest(pepper, secret.encode(), "sha256")


def _checksum(key_id: str, secret: str) -> str:
    number = int.from_bytes(hashlib.sha256(f"{key_id}_{secret}".encode()).digest()[:4]) >> 2
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(0, 30, 5))
