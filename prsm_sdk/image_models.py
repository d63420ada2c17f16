"""Images and logins to registries as frozen values. Times are RFC 3339 text as sent."""

import dataclasses

from .wire import Wire, many, strings

_value = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)


@_value
class ImageUse(Wire):
    """A revision that uses an image."""

    deployment_id: str = ""
    model_id: str = ""
    organization: str = ""
    revision: int = 0


@_value
class Image(Wire):
    """An image that is here. `origin` is pulled or loaded, None if prsmd did not bring it.

    `kept_for` says why a prune would leave it; None means that it would go.
    """

    id: str
    references: tuple[str, ...] = strings()
    digests: tuple[str, ...] = strings()
    size_bytes: int = 0
    in_use: bool = False
    origin: str | None = None
    private: bool = False
    brought_at: str | None = None
    brought_by: str | None = None
    organization: str | None = None
    used_by: tuple[ImageUse, ...] = many(ImageUse)
    would_be_pruned: bool = False
    kept_for: str | None = None


@_value
class LoadedImage(Wire):
    """An image that was loaded. `replaced_digest` is what its name meant before, if another."""

    digest: str
    id: str = ""
    reference: str | None = None
    size_bytes: int = 0
    replaced_digest: str | None = None
    still_run_by: tuple[ImageUse, ...] = many(ImageUse)


@_value
class LoadResult(Wire):
    """What came of an archive. `archive_digest` is the SHA-256 of what arrived."""

    archive_digest: str
    archive_bytes: int = 0
    images: tuple[LoadedImage, ...] = many(LoadedImage)


@_value
class PrunedImage(Wire):
    """An image that goes, or stays for a `reason`."""

    id: str
    names: tuple[str, ...] = strings()
    size_bytes: int = 0
    reason: str | None = None


@_value
class PruneResult(Wire):
    """What was removed, or would be. Layers that images share are counted for each of them."""

    dry_run: bool = False
    keep_revisions: int = 0
    removed: tuple[PrunedImage, ...] = many(PrunedImage)
    kept: tuple[PrunedImage, ...] = many(PrunedImage)
    freed_bytes: int = 0


@_value
class RegistryLogin(Wire):
    """An organization's login to an image registry, without its password."""

    server: str
    username: str = ""
    organization: str = ""
    created_at: str | None = None
    updated_at: str | None = None
    updated_by: str | None = None
