"""Calls about secrets, and what they answer: never a value. As in `calls`, sends nothing."""

import base64
import dataclasses

from .calls import Call, fresh_key, segment
from .wire import Page, Wire, page_of, strings

_value = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)


@_value
class Secret(Wire):
    """What may be shown of a secret. `used_by` are the ids of the models that need it."""

    name: str
    organization: str = ""
    version: int = 0
    size_bytes: int = 0
    key_id: str = ""
    used_by: tuple[str, ...] = strings()
    created_at: str | None = None
    updated_at: str | None = None
    updated_by: str | None = None


@_value
class KeyRotation(Wire):
    """What was sealed anew. `key_made_here`: the new envelope key is the daemon's own."""

    key_id: str
    resealed_secrets: int = 0
    resealed_registries: int = 0
    key_made_here: bool = False


def set_secret(name: str, value: bytes, organization: str | None = None) -> Call[Secret]:
    """Keep a value under a name, as its next version if there is one."""
    body = {"value_base64": base64.b64encode(value).decode()}
    return Call(
        method="PUT",
        path=f"/v1/secrets/{segment(name)}",
        decode=Secret.decode,
        body=body | ({} if organization is None else {"organization": organization}),
        idempotency_key=fresh_key(),
    )


def list_secrets() -> Call[Page[Secret]]:
    """List secrets, without their values."""
    return Call(method="GET", path="/v1/secrets", decode=page_of(("secrets",), Secret.decode))


def remove_secret(
    name: str, organization: str | None = None, *, force: bool = False
) -> Call[Secret]:
    """Forget a secret; with `force` even one that models use."""
    query = {"force": "true"} if force else {}
    return Call(
        method="DELETE",
        path=f"/v1/secrets/{segment(name)}",
        decode=Secret.decode,
        query=query | ({} if organization is None else {"organization": organization}),
        idempotency_key=fresh_key(),
    )


def rotate_key() -> Call[KeyRotation]:
    """Seal everything anew with the next envelope key."""
    return Call(
        method="POST",
        path="/v1/secrets/rotate-key",
        decode=KeyRotation.decode,
        body={},
        idempotency_key=fresh_key(),
    )
