"""Where the daemon is and which key goes to it. Decides; opens nothing but what it must look at."""

import dataclasses
import os
import re
import urllib.parse
from collections.abc import Mapping
from typing import Self

from .errors import ConfigurationError

DEFAULT_SOCKET = "/run/prsmd/prsmd.sock"
DEFAULT_URL = "http://127.0.0.1:7443"
PLACEHOLDER_KEY = "your-api-key"  # stands in the published document's program
_ORGANIZATION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_PORTS = {"http": 80, "https": 443}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One daemon: a Unix socket (`socket_path`) or a TCP address, and the key to present.

    `prefix` is put before every path; `ca_file` holds the certificates to trust with https
    (None: the system's). `organization` is the one that every call is for (None: the caller's own).
    """

    socket_path: str | None = None
    scheme: str = "http"
    host: str = "localhost"
    port: int = 80
    prefix: str = ""
    api_key: str | None = dataclasses.field(default=None, repr=False)
    ca_file: str | None = None
    organization: str | None = None

    @property
    def url(self) -> str:
        """Return the origin of every request's URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    def __str__(self) -> str:
        return f"unix://{self.socket_path}" if self.socket_path else self.url + self.prefix

    @classmethod
    def resolve(
        cls,
        base_url: str | None = None,
        api_key: str | None = None,
        ca_file: str | None = None,
        organization: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> Self:
        """Return the daemon to talk to.

        An argument wins over its environment variable (`PRSMD_URL`, `PRSMD_API_KEY`,
        `PRSMD_CA_FILE`, `PRSMD_ORGANIZATION`). Without an address it is the Unix socket of the
        local daemon where there is one that the caller can use, else its TCP port on the loopback
        interface. The published document's placeholder counts as no key, so that its program runs
        as it stands for a user whom the local daemon knows.

        Raises:
            ConfigurationError: The address is no address, or the key no key.
        """
        given = None if api_key == PLACEHOLDER_KEY else api_key
        key = _checked_key(given or environ.get("PRSMD_API_KEY") or None)
        url = base_url or environ.get("PRSMD_URL") or _local_url(key)
        trusted = ca_file or environ.get("PRSMD_CA_FILE") or None
        if organization is None:  # an empty one was meant to name one: it is not left out
            organization = environ.get("PRSMD_ORGANIZATION") or None
        named = _checked_organization(organization)
        parts = urllib.parse.urlsplit(url)
        if parts.scheme == "unix":
            if parts.netloc or not parts.path.startswith("/"):
                raise ConfigurationError(f"{url}: write a Unix socket as unix:///absolute/path")
            path = urllib.parse.unquote(parts.path)
            return cls(socket_path=path, api_key=key, organization=named)
        host, port = _tcp_address(url, parts)
        return cls(
            scheme=parts.scheme,
            host=host,
            port=port,
            prefix=parts.path.rstrip("/"),
            api_key=key,
            ca_file=trusted,
            organization=named,
        )


def _tcp_address(url: str, parts: urllib.parse.SplitResult) -> tuple[str, int]:
    problem = f"{url}: the address must be unix:///path, http://host:port or https://host:port"
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError("the address must hold neither a user nor a query")
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(problem) from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ConfigurationError(problem)
    return parts.hostname, port or _PORTS[parts.scheme]


def _local_url(api_key: str | None) -> str:
    """Return the local daemon's address; a socket that is closed to us is no use beside a key."""
    usable = os.access(DEFAULT_SOCKET, os.W_OK) or (
        os.access(DEFAULT_SOCKET, os.F_OK) and not api_key
    )
    return f"unix://{DEFAULT_SOCKET}" if usable else DEFAULT_URL


def _checked_key(api_key: str | None) -> str | None:
    """Refuse what would break the header it travels in, without repeating it."""
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise ConfigurationError("the API key holds characters that no key has")
    return api_key


def _checked_organization(name: str | None) -> str | None:
    if name is not None and _ORGANIZATION.fullmatch(name) is None:
        raise ConfigurationError(f"{name[:100]!r} is no organization's name: a-z, 0-9 and -")
    return name
