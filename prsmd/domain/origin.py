"""Where a request comes from: an address of the network, or a process on the Unix socket."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process that opened the Unix socket."""

    pid: int
    uid: int
    gid: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a request comes from. `ip` None: the Unix socket, and `peer` is who opened it.

    `hop` is the address of the connection itself, which is a proxy's where one is trusted.
    """

    ip: str | None = None
    hop: str | None = None
    peer: Peer | None = None

    @property
    def address(self) -> str:
        """The address as records and log lines have it."""
        if self.peer is not None:
            return f"unix:uid={self.peer.uid},pid={self.peer.pid}"
        return self.ip or ""

    @property
    def whose(self) -> str:
        """The address without what one caller can change at will: a process's number."""
        return f"unix:uid={self.peer.uid}" if self.peer is not None else self.ip or ""
