"""The client's noun for secrets."""

from . import secret_calls
from .aio import AsyncTransport
from .secret_calls import KeyRotation, Secret
from .wire import Page


class Secrets:
    """The organization's secrets. Values go in; only containers get them."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def set(self, name: str, value: str | bytes, organization: str | None = None) -> Secret:
        """Keep a value, as the secret's next version. What runs keeps the one it has."""
        content = value.encode() if isinstance(value, str) else value
        return await self._transport.send(secret_calls.set_secret(name, content, organization))

    async def list(self) -> Page[Secret]:
        """List secrets with their versions and the models that use them, without values."""
        return await self._transport.send(secret_calls.list_secrets())

    async def remove(
        self, name: str, organization: str | None = None, *, force: bool = False
    ) -> None:
        """Forget a secret. ConflictError while models use it, unless `force`."""
        await self._transport.send(secret_calls.remove_secret(name, organization, force=force))

    async def rotate_key(self) -> KeyRotation:
        """Seal every secret and registry password anew with the next envelope key."""
        return await self._transport.send(secret_calls.rotate_key())
