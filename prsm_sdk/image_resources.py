"""The client's nouns for images: what is here, and the logins by which it is pulled."""

from pathlib import Path
from typing import BinaryIO

from . import image_calls
from .aio import AsyncTransport
from .image_models import Image, LoadResult, PruneResult, RegistryLogin
from .upload import Upload
from .wire import Page


class Images:
    """The appliance's images."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self) -> Page[Image]:
        """List the images that are here, who uses them, and which a prune would remove."""
        return await self._transport.send(image_calls.list_images())

    async def load(
        self, archive: str | Path | BinaryIO, digest: str | None = None, name: str | None = None
    ) -> LoadResult:
        """Load the images of an archive: what `docker save` writes, or an OCI layout as tar.

        `archive` is a path, or a binary file that is read to its end. `digest` (`sha256:…`) is
        checked before anything is loaded; `name` is given to the only image in it.
        """
        source = Path(archive) if isinstance(archive, str) else archive
        return await self._transport.send(image_calls.load_images(Upload(source), digest, name))

    async def prune(
        self, keep_revisions: int | None = None, *, dry_run: bool = False
    ) -> PruneResult:
        """Remove the images that prsmd brought and nobody needs; with `dry_run` only tell.

        Those of each model's last `keep_revisions` revisions stay (by default as configured).
        """
        return await self._transport.send(image_calls.prune_images(keep_revisions, dry_run=dry_run))


class Registries:
    """The organization's logins to image registries, used for its own pulls."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self) -> Page[RegistryLogin]:
        """List logins, without their passwords."""
        return await self._transport.send(image_calls.list_registries())

    async def add(
        self, server: str, username: str, password: str, organization: str | None = None
    ) -> RegistryLogin:
        """Keep a login for `server` (`host` or `host:port`), in place of an earlier one."""
        return await self._transport.send(
            image_calls.save_registry(server, username, password, organization)
        )

    async def remove(self, server: str, organization: str | None = None) -> None:
        """Forget a login."""
        await self._transport.send(image_calls.remove_registry(server, organization))
