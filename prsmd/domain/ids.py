"""Identifiers: how they are made and how a model's name becomes its id."""

import re
import secrets

_ALPHABET = (
    "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letter is mistaken for a digit
)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?", re.IGNORECASE)


def random_id(prefix: str, length: int = 12) -> str:
    """Return `prefix_` and `length` random base-32 characters (5 bits each)."""
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(length))


def is_name(text: str) -> bool:
    """Tell whether `text` can name a model: 1 to 63 of a-z, 0-9, `.`, `_`, `-`."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def model_id_for(model_name: str, organization: str) -> str:
    """Return `custom_` and the name in snake case without a leading `<organization>-`."""
    name = model_name.lower().removeprefix(f"{organization.lower()}-") or model_name.lower()
    return "custom_" + re.sub(r"[^a-z0-9]+", "_", name).strip("_")


def replica_id_for(deployment_id: str, revision: int, slot: int, suffix: str) -> str:
    """Return the id of a replica; it is also the container's name, so it stays DNS-safe.

    `suffix` is random and tells successive replicas of one slot apart.
    """
    return f"{deployment_id.removeprefix('deploy_')}-r{revision}-s{slot}-{suffix}"
