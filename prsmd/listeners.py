"""The two listeners: taken from systemd where it passed them, else opened here."""

import contextlib
import grp
import logging
import os
import socket
import ssl
import stat
from pathlib import Path

from prsmd.config import ConfigurationError
from prsmd.settings import TcpSection, UnixSection

log = logging.getLogger(__name__)
BACKLOG = 1024  # connections that may wait to be accepted; more are refused at once


def open_unix(section: UnixSection) -> socket.socket:
    """Return the listening Unix socket, with its mode set before anyone can connect."""
    path = section.path
    with contextlib.ExitStack() as unless_ready:
        listener = unless_ready.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            _refuse_busy(path)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            _bind(listener, path, int(section.mode, 8))
        except OSError as error:
            raise ConfigurationError([f"unix.path: {path}: {error.strerror or error}"]) from None
        _give_to_group(path, section.group)
        listener.listen(BACKLOG)
        unless_ready.pop_all()
    return listener


def open_tcp(section: TcpSection) -> socket.socket:
    """Return the listening TCP socket."""
    family = socket.AF_INET6 if ":" in section.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((section.host, section.port))
    except OSError as error:
        listener.close()
        problem = f"tcp: {section.host}:{section.port}: {error.strerror}"
        raise ConfigurationError([problem]) from None
    listener.listen(BACKLOG)
    return listener


class Certificate:
    """The TLS of the TCP listener. Connections that are made after a change get the new one.

    `context` is for the listener; None where no certificate is configured. ConfigurationError for
    a certificate and a key that cannot be used together.
    """

    def __init__(self, section: TcpSection) -> None:
        self.context = tls_context(section)
        self._now = self.context
        self._read = _content(section)
        if self.context is not None:
            self.context.sni_callback = self._hand_over

    def apply(self, section: TcpSection) -> bool:
        """Read the files again; tell whether they are others. ConfigurationError as at the start.

        A listener that began with TLS keeps it, and one without gets none before a restart.
        """
        made = tls_context(section)
        if self.context is None or made is None:
            raise ConfigurationError(["tcp.cert: TLS is switched on and off by a restart"])
        content = _content(section)
        changed = content != self._read
        self._now, self._read = made, content
        return changed

    def _hand_over(
        self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        # Called for every client hello, with a server's name or without.
        if self._now is not None:
            connection.context = self._now


def tls_context(section: TcpSection) -> ssl.SSLContext | None:
    """Return the TLS settings of the TCP listener; None where no certificate is configured."""
    if section.cert is None or section.key is None:
        return None
    _content(section)  # names the file that cannot be read, which OpenSSL does not
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(section.cert, section.key, _no_passphrase)
    except (OSError, ValueError) as error:
        raise ConfigurationError([f"tcp.cert, tcp.key: {_unusable(section, error)}"]) from None
    return context


def _no_passphrase() -> str:
    # Else OpenSSL asks the terminal for it, and waits.
    raise ValueError


def _unusable(section: TcpSection, error: Exception) -> str:
    if not isinstance(error, OSError):
        return f"{section.key} is sealed with a passphrase, which nobody is asked for"
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"{section.key} is not the key of {section.cert}"
    return f"{section.cert} and {section.key} are no certificate and key in PEM"


def _content(section: TcpSection) -> tuple[bytes, ...]:
    content = []
    for name, path in (("tcp.cert", section.cert), ("tcp.key", section.key)):
        try:
            content += [] if path is None else [path.read_bytes()]
        except OSError as error:
            raise ConfigurationError([f"{name}: {path}: {error.strerror or error}"]) from None
    return tuple(content)


def _bind(listener: socket.socket, path: Path, mode: int) -> None:
    before = os.umask(0o777 & ~mode)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)


def _refuse_busy(path: Path) -> None:
    """Remove a socket that a dead daemon left; refuse one that answers, and any other file."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigurationError([f"unix.path: {path}: is there and is not a socket"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise ConfigurationError([f"unix.path: {path}: another daemon answers on this socket"])


def _give_to_group(path: Path, group: str) -> None:
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        log.warning("group %s does not exist; only this user can use %s", group, path)
        return
    with contextlib.suppress(PermissionError):
        os.chown(path, -1, gid)
