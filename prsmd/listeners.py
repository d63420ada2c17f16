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
            path.parent.mkdir(parents=True, exist_ok=True)
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


def tls_context(section: TcpSection) -> ssl.SSLContext | None:
    """Return the TLS settings of the TCP listener; None where no certificate is configured."""
    if section.cert is None or section.key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(section.cert, section.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError([f"tcp.cert, tcp.key: {error}"]) from None
    return context


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
