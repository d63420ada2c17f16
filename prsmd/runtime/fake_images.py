"""The images of an engine in memory, and of the registries that it can pull from.

`Shelf` is the world, which a test steers: each way to fail is a method or field with its name.
"""

import dataclasses
import hashlib
from collections.abc import Awaitable, Callable

from prsmd.domain.errors import EngineError, ImageUnavailableError, PullBrokenOffError
from prsmd.domain.image import Login
from prsmd.domain.quantity import MIB

from .archive import Archive
from .base import Image, PullProgress


class Shelf:
    """Images by name. `cuts` pulls break off half-way; `free_bytes` is what the disk has left."""

    def __init__(self, images: tuple[str, ...], pullable: tuple[str, ...]) -> None:
        self.images = {reference: image_of(reference) for reference in images}
        self.cuts = 0
        self.free_bytes: int | None = None
        self.logins: list[Login | None] = []
        self._pullable = set(pullable)
        self._private: dict[str, Login] = {}
        self._used: dict[str, str] = {}

    def make_pullable(self, reference: str, login: Login | None) -> None:
        """Let a registry have the image, for everyone or only with a login."""
        self._pullable.add(reference)
        if login is not None:
            self._private[reference] = login

    def make_image(self, reference: str, content: str) -> Image:
        """Let a name mean other content, as a tag that was moved by hand does."""
        self.images[reference] = image_of(reference, content)
        return self.images[reference]

    def use(self, replica: str, digest: str) -> None:
        """Note that a container is made from an image."""
        self._used[replica] = digest

    def let_go(self, replica: str) -> None:
        """Note that the container is gone."""
        self._used.pop(replica, None)

    def pull(self, reference: str, login: Login | None, half_way: Callable[[Image], None]) -> Image:
        """Bring an image here if a registry has it and lets this login read it."""
        self.logins.append(login)
        if reference not in self._pullable and reference not in self.images:
            raise ImageUnavailableError(f"pull {reference}: no registry has it")
        known = "@" in reference and reference in self.images  # no registry is asked again
        if not known and self._private.get(reference, login) != login:
            raise ImageUnavailableError(f"pull {reference}: unauthorized: authentication required")
        image = self.images.get(reference) or image_of(reference)
        half_way(image)
        if self.cuts:
            self.cuts -= 1
            raise PullBrokenOffError(f"pull {reference}: unexpected EOF")
        self.images[reference] = image
        return image

    def remote_digest(self, reference: str, login: Login | None) -> str | None:
        """Return the digest that a registry tells this login; None where it tells nothing."""
        readable = self._private.get(reference, login) == login
        return image_of(reference).digest if reference in self._pullable and readable else None

    def load(self, archive: Archive) -> list[Image]:
        """Take an archive's images in, each under each name; a name's former image stays."""
        found = []
        for image in archive.images:
            for name in image.references or (image.id,):
                former = self.images.get(name)
                if former is not None and former.id != image.id:
                    self.images[former.id] = dataclasses.replace(former, reference=former.id)
                size = sum(layer.size for layer in image.layers)
                loaded = Image(reference=name, digest=image.id, size_bytes=size, id=image.id)
                self.images[name] = loaded
                found.append(loaded)
        return found

    def remove(self, image_id: str) -> None:
        """Remove an image with all its names, unless a container is made from it."""
        if any(image.in_use for image in self.listed() if image.id == image_id):
            raise EngineError(f"image {image_id[:19]} has a container: left alone")
        for name in [name for name, image in self.images.items() if image.id == image_id]:
            del self.images[name]

    def listed(self) -> list[Image]:
        """Return every image under each of its names; a removed name's image is not among them."""
        used = self._used.values()
        return [
            dataclasses.replace(image, in_use=image.digest in used)
            for image in self.images.values()
        ]


class FakeImages:
    """The images of a fake engine."""

    loads = True

    def __init__(self, shelf: Shelf, enter: Callable[[str], Awaitable[None]]) -> None:
        self._shelf = shelf
        self._enter = enter

    async def resolve(self, reference: str) -> Image | None:
        """Return the image if the engine has it, by name or by what containers are made from."""
        await self._enter("resolve")
        images = self._shelf.images
        by_digest = (image for image in images.values() if image.digest == reference)
        return images.get(reference) or next(by_digest, None)

    async def pull(
        self,
        reference: str,
        on_progress: Callable[[PullProgress], None],
        login: Login | None = None,
    ) -> Image:
        """Bring the image here, reporting half-way and the end."""
        await self._enter("pull")

        def note(image: Image, done_bytes: int) -> None:
            progress = PullProgress(
                status="Downloading", done_bytes=done_bytes, total_bytes=image.size_bytes
            )
            on_progress(progress)

        image = self._shelf.pull(reference, login, lambda image: note(image, image.size_bytes // 2))
        note(image, image.size_bytes)
        return image

    async def load(
        self, archive: Archive, on_progress: Callable[[PullProgress], None]
    ) -> list[Image]:
        """Take the archive's images in."""
        await self._enter("load")
        on_progress(PullProgress(status="Loading layer"))
        return self._shelf.load(archive)

    async def remove(self, image_id: str) -> None:
        """Remove an image with all its names."""
        await self._enter("remove")
        self._shelf.remove(image_id)

    async def list(self) -> list[Image]:
        """Return every image."""
        await self._enter("images")
        return self._shelf.listed()

    async def remote_digest(self, reference: str, login: Login | None = None) -> str | None:
        """Return what a pull would bring, None where it would fail."""
        await self._enter("remote digest")
        return self._shelf.remote_digest(reference, login)

    async def free_bytes(self) -> int | None:
        """Return what a test says is free."""
        await self._enter("free bytes")
        return self._shelf.free_bytes


def image_of(reference: str, content: str | None = None) -> Image:
    """Return the image of some content, by default one of the name's own."""
    digest = f"sha256:{hashlib.sha256((content or reference).encode()).hexdigest()}"
    return Image(reference=reference, digest=digest, id=digest, size_bytes=64 * MIB)
