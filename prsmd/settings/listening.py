"""Where the daemon listens, and what a request may be at most."""

import itertools
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from prsmd.core import networks
from prsmd.domain.quantity import parse_memory

from .section import Memory, Seconds, Section


class UnixSection(Section):
    """The local listener."""

    path: Path = Path("/run/prsmd/prsmd.sock")
    mode: str = Field(default="0660", pattern="^0?[0-7]{3}$")
    group: str = "prsmd"


class TcpSection(Section):
    """The network listener. Without a certificate it binds loopback only."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=7443, ge=0, le=65535)
    cert: Path | None = None
    key: Path | None = None
    allow_plaintext: bool = False
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    public_url: str | None = Field(default=None, pattern="^https?://[^/]+$")
    trusted_proxies: tuple[str, ...] = ()
    proxy_header: Literal["X-Forwarded-For", "Forwarded"] = "X-Forwarded-For"

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(networks.canonical(text) for text in given)

    @model_validator(mode="after")
    def _plaintext_stays_local(self) -> "TcpSection":
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together: set both or neither")
        local = self.host in {"localhost", "::1"} or self.host.startswith("127.")
        if self.enabled and not local and self.cert is None and not self.allow_plaintext:
            raise ValueError(
                f"host {self.host} is not loopback and there is no TLS: set cert and key,"
                " or allow_plaintext = true if the network is trusted"
            )
        return self


class LimitsSection(Section):
    """What a request may be at most."""

    body: Memory = "16Mi"
    response: Memory = "64Mi"
    memory: Memory = "256Mi"
    memory_per_organization: Memory = "160Mi"
    memory_per_principal: Memory = "96Mi"
    header: Memory = "16Ki"
    header_timeout_seconds: Seconds = 15.0
    body_timeout_seconds: Seconds = 60.0
    idle_timeout_seconds: Seconds = 75.0
    readers: int = Field(default=4, ge=1, le=64)
    reads_waiting: int = Field(default=256, ge=1, le=100_000)
    query_seconds: Seconds = 1.0
    write_timeout_seconds: Seconds = 60.0
    write_rate: Memory = "1Ki"
    connections: int = Field(default=4096, ge=1)
    connections_per_principal: int = Field(default=1024, ge=1)
    connections_unidentified: int = Field(default=2048, ge=1)
    connections_unidentified_per_address: int = Field(default=512, ge=1)
    streams_per_principal: int = Field(default=128, ge=1)

    @model_validator(mode="after")
    def _parts_fit(self) -> "LimitsSection":
        names = ("body", "memory_per_principal", "memory_per_organization", "memory")
        for smaller, larger in itertools.pairwise(names):
            if parse_memory(getattr(self, smaller)) > parse_memory(getattr(self, larger)):
                raise ValueError(f"{smaller} must not be more than {larger}")
        return self
