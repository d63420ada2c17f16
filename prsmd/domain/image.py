"""Images: where each came from, who may run it, and how one logs in to a registry."""

import dataclasses
import enum
import re
from collections.abc import Sequence

DEFAULT_REGISTRY = "docker.io"
NOBODY = ""  # in the place of an organization: brought, and not known to be allowed to anyone
_DEFAULT_NAMES = {"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"}
_SERVER = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::[0-9]{1,5})?")


class ImageOrigin(enum.StrEnum):
    """How prsmd got an image."""

    PULLED = "pulled"
    LOADED = "loaded"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """That prsmd brought an image here, once for each name and organization.

    `id` is the engine's name of the content, the same under every reference. `private`: it was
    pulled with the organization's own login, so that nobody else is known to be allowed to read it.
    """

    id: str
    reference: str
    digest: str
    organization: str
    origin: ImageOrigin
    private: bool
    by: str
    at: float
    size_bytes: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A name and password for one registry."""

    server: str
    username: str
    password: str = dataclasses.field(repr=False)


def may_run(organization: str, brought: Sequence[Brought]) -> bool:
    """Tell whether an organization may run an image that is here without asking its registry.

    `brought` is what is known of this content. What prsmd did not bring was put here by someone who
    rules the engine, for everyone; so was what was loaded, or pulled without a login. What others
    pulled with their own login is theirs: its registry says who else may read it.
    """
    if not brought:
        return True
    return any(not one.private or one.organization == organization for one in brought)


def familiar(name: str) -> str:
    """Return a reference or digest as people and engines write it; without either, `latest`."""
    short = name.removeprefix("docker.io/").removeprefix("library/")
    tagged = ":" in short.rpartition("/")[2]
    return short if tagged else f"{short}:latest"


def registry_of(reference: str) -> str:
    """Return the server that a reference is pulled from."""
    first, slash, _ = reference.partition("/")
    named = bool(slash) and (first == "localhost" or "." in first or ":" in first)
    return server_name(first) if named else DEFAULT_REGISTRY


def server_name(text: str) -> str:
    """Return one spelling for a registry's server: `https://Index.Docker.io/v1/` is `docker.io`."""
    bare = re.sub(r"^https?://", "", text.strip().lower()).removesuffix("/")
    bare = re.sub(r"/v[12]$", "", bare)
    return DEFAULT_REGISTRY if bare in _DEFAULT_NAMES else bare


def is_server(name: str) -> bool:
    """Tell whether `name` is a host, with a port or without, as `server_name` returns it."""
    port = name.rpartition(":")[2] if ":" in name else "1"
    return _SERVER.fullmatch(name) is not None and 0 < int(port) < 65536
