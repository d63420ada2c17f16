"""The images of one Docker engine: looked for, pulled, loaded, removed.

Decides nothing: who may use an image, whether there is room and what to try again is decided above.
"""

import asyncio
import base64
import contextlib
import functools
import json
import re
import shutil
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from prsmd.domain.errors import (
    EngineError,
    EngineUnreachableError,
    ImageUnavailableError,
)
from prsmd.domain.image import Login

from . import docker_reading as reading
from .archive import Archive
from .base import Image, PullProgress
from .docker_connection import Client, Connections, unless_gone
from .references import is_reference, split_reference

_ID = re.compile(r"sha256:[0-9a-f]{64}")
Credentials = Callable[[Client, str], Mapping[str, str | bytes]]


class DockerImages:
    """The images of one engine. `credentials` finds its user's own login for a repository."""

    loads = True

    def __init__(self, engine: Connections, base_url: str, credentials: Credentials) -> None:
        self._engine = engine
        self._base_url = base_url
        self._credentials = credentials

    async def resolve(self, reference: str) -> Image | None:
        """Return the image if the engine has it."""
        if not is_reference(reference):
            return None

        raw = await self._engine.looking.call(
            f"look for image {reference}",
            lambda client: unless_gone(lambda: client.inspect_image(reference)),
        )
        return reading.image(raw, reference) if raw and reading.is_named(raw, reference) else None

    async def pull(
        self,
        reference: str,
        on_progress: Callable[[PullProgress], None],
        login: Login | None = None,
    ) -> Image:
        """Pull the image, with the login or else the credentials of the user's configuration."""
        if not is_reference(reference):
            raise ImageUnavailableError(f"not an image reference: {reference[:200]!r}")
        repository, tag = split_reference(reference)
        what = f"pull {reference}"
        headers = await self._headers(what, repository, login)
        options = {"fromImage": repository, "tag": tag}
        try:
            stream = self._engine.follow(what, "/images/create", options, headers)
            error = await _follow(stream, on_progress)
        except EngineUnreachableError:
            raise
        except EngineError as refused:
            error = refused.message.removeprefix(f"{what}: ")
        image = None if error else await self.resolve(reference)
        if image is None:
            words = error or "it is not here"
            raise reading.pull_failure(what, words, repository, asked_with=login is not None)
        return image

    async def load(
        self, archive: Archive, on_progress: Callable[[PullProgress], None]
    ) -> list[Image]:
        """Give the engine what was verified of the archive, in the form that every engine reads."""
        what = "load the archive"
        headers = {
            "Content-Type": "application/x-tar",
            "Content-Length": str(archive.tar_bytes()),
        }
        stream = self._engine.follow(what, "/images/load", {"quiet": 0}, headers, archive.tar())
        error = await _follow(stream, on_progress)
        if error:
            raise EngineError(f"{what}: {error}")
        names = [name for image in archive.images for name in image.references or (image.id,)]
        found = await asyncio.gather(*(self.resolve(name) for name in names))
        missing = [name for name, image in zip(names, found, strict=True) if image is None]
        if missing:
            raise EngineError(f"{what}: the engine took it, but has no {', '.join(missing[:3])}")
        return [image for image in found if image is not None]

    async def remove(self, image_id: str) -> None:
        """Remove the image under each of its names; without force, so never one in use."""
        if _ID.fullmatch(image_id) is None:
            raise EngineError(f"not an image's id: {image_id[:80]!r}")

        def remove(client: Client) -> None:
            raw = unless_gone(lambda: client.inspect_image(image_id))
            if raw is None:
                return
            if image_id in _used(client):
                raise EngineError(f"image {image_id[:19]} has a container: left alone")
            for name in (*(raw.get("RepoTags") or []), *(raw.get("RepoDigests") or []), image_id):
                unless_gone(functools.partial(client.remove_image, name))

        await self._engine.changing.call(f"remove image {image_id[:19]}", remove)

    async def list(self) -> list[Image]:
        """Return every image under each of its names, those without one under their id."""

        def read(client: Client) -> list[Image]:
            used = _used(client)
            return [one for raw in client.images() for one in reading.listed_images(raw, used)]

        return await self._engine.looking.call("list images", read)

    async def remote_digest(self, reference: str, login: Login | None = None) -> str | None:
        """Let the engine ask the registry; any refusal means that it cannot be told."""
        if not is_reference(reference) or _ID.fullmatch(reference):
            return None
        repository, _ = split_reference(reference)
        sent = None if login is None else _auth(login)
        try:
            found = await self._engine.looking.call(
                f"ask for {reference}",
                lambda client: client.inspect_distribution(reference, auth_config=sent),
            )
        except EngineError:
            return None
        digest = (found.get("Descriptor") or {}).get("digest")
        return f"{repository}@{digest}" if digest else None

    async def free_bytes(self) -> int | None:
        """Return the space left for the engine's data, where the engine is on this machine."""
        if not self._base_url.startswith("unix://"):
            return None
        root = await self._engine.looking.call(
            "look for the engine's data", lambda client: client.info().get("DockerRootDir")
        )
        try:
            return shutil.disk_usage(root).free if root else None
        except OSError:
            return None

    async def _headers(
        self, what: str, repository: str, login: Login | None
    ) -> Mapping[str, str | bytes]:
        if login is not None:
            text = json.dumps(_auth(login))
            return {"X-Registry-Auth": base64.urlsafe_b64encode(text.encode())}
        return await self._engine.looking.call(
            what, lambda client: self._credentials(client, repository)
        )


async def _follow(
    stream: contextlib.AbstractAsyncContextManager[AsyncGenerator[bytes, None]],
    on_progress: Callable[[PullProgress], None],
) -> str | None:
    """Read a pull or load to its end; return why it failed, in the engine's words."""
    messages = reading.PullMessages()
    async with stream as chunks:
        async for chunk in chunks:
            for progress in messages.feed(chunk):
                on_progress(progress)
    return messages.error


def _auth(login: Login) -> dict[str, Any]:
    return {
        "username": login.username,
        "password": login.password,
        "serveraddress": login.server,
    }


def _used(client: Client) -> set[str]:
    """Return the ids of the images that any container is made from, running or not."""
    return {entry["ImageID"] for entry in client.containers(all=True)}
