"""Calls about images and registries: list, load, prune; logins. As in `calls`, sends nothing."""

from .calls import Call, fresh_key, segment
from .image_models import Image, LoadResult, PruneResult, RegistryLogin
from .upload import Upload
from .wire import Page, page_of

LOAD_TIMEOUT = 6 * 3600.0  # of archives as large as disks


def list_images() -> Call[Page[Image]]:
    """List the images that are here."""
    return Call(method="GET", path="/v1/images", decode=page_of(("images",), Image.decode))


def load_images(
    archive: Upload, digest: str | None = None, name: str | None = None
) -> Call[LoadResult]:
    """Load an archive of images; `digest` is checked, `name` is for the only image in it."""
    query = {"digest": digest, "name": name}
    return Call(
        method="POST",
        path="/v1/images",
        decode=LoadResult.decode,
        query={key: value for key, value in query.items() if value is not None},
        upload=archive,
        timeout=LOAD_TIMEOUT,
        idempotency_key=fresh_key() if archive.repeatable else None,
    )


def prune_images(keep_revisions: int | None = None, *, dry_run: bool = False) -> Call[PruneResult]:
    """Remove the images that prsmd brought and nobody needs, or tell which these are."""
    body: dict[str, int] = {"dry_run": dry_run}
    body |= {} if keep_revisions is None else {"keep_revisions": keep_revisions}
    return Call(
        method="POST",
        path="/v1/images/prune",
        decode=PruneResult.decode,
        body=body,
        idempotency_key=fresh_key(),
        timeout=300.0,
    )


def list_registries() -> Call[Page[RegistryLogin]]:
    """List logins to registries, without their passwords."""
    decode = page_of(("registries",), RegistryLogin.decode)
    return Call(method="GET", path="/v1/registries", decode=decode)


def save_registry(
    server: str, username: str, password: str, organization: str | None = None
) -> Call[RegistryLogin]:
    """Keep a login for a registry, in place of an earlier one."""
    body = {"server": server, "username": username, "password": password}
    return Call(
        method="POST",
        path="/v1/registries",
        decode=RegistryLogin.decode,
        body=body | ({} if organization is None else {"organization": organization}),
        idempotency_key=fresh_key(),
    )


def remove_registry(server: str, organization: str | None = None) -> Call[RegistryLogin]:
    """Forget a login."""
    return Call(
        method="DELETE",
        path=f"/v1/registries/{segment(server)}",
        decode=RegistryLogin.decode,
        query={} if organization is None else {"organization": organization},
        idempotency_key=fresh_key(),
    )
