"""`PRSMClient`, the asynchronous client that the published document's program uses."""

from types import TracebackType
from typing import Self

from .aio import AsyncTransport
from .audit_resources import Audit
from .exchange import DEFAULT_TIMEOUT
from .identity_calls import who_am_i
from .identity_models import Caller
from .identity_resources import Keys, Members, Organizations, Roles
from .image_resources import Images, Registries
from .resources import CustomModels, Models, NodeResource
from .secret_resources import Secrets
from .share_resources import Shares
from .target import Target


class PRSMClient:
    """A connection to one daemon.

    Without `base_url` it is the one that `PRSMD_URL` names, else the local daemon: its Unix socket
    where there is one, its loopback port otherwise. Without `api_key` it is `PRSMD_API_KEY`; over
    the Unix socket none is needed. Use it with `async with`, or without: connections are opened
    at the first call and closed with the event loop.

    Args:
        api_key: The key to present.
        base_url: `unix:///path`, `http://host:port` or `https://host:port`.
        timeout: Seconds for a whole call, its repetitions included.
        ca_file: Certificates to trust with https, as PEM; by default the system's.
        organization: For which organization the calls are, for a caller who belongs to several;
            by default `PRSMD_ORGANIZATION`.

    Raises:
        ConfigurationError: The address or the key cannot be used.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        ca_file: str | None = None,
        organization: str | None = None,
    ) -> None:
        self.target = Target.resolve(base_url, api_key, ca_file, organization)
        self._transport = AsyncTransport(self.target, timeout)
        self.custom_models = CustomModels(self._transport)
        self.models = Models(self._transport)
        self.node = NodeResource(self._transport)
        self.keys = Keys(self._transport)
        self.organizations = Organizations(self._transport)
        self.roles = Roles(self._transport)
        self.members = Members(self._transport)
        self.shares = Shares(self._transport)
        self.images = Images(self._transport)
        self.registries = Registries(self._transport)
        self.secrets = Secrets(self._transport)
        self.audit = Audit(self._transport)

    async def who_am_i(self) -> Caller:
        """Return who the caller is and what they may do."""
        return await self._transport.send(who_am_i())

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<PRSMClient {self.target}>"
