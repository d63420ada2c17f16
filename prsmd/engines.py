"""Chooses the runtime that replicas run on, and makes it from its section of the settings."""

import asyncio
import hashlib
import logging
import socket
from pathlib import Path
from typing import Any

from prsmd.domain.errors import EngineError
from prsmd.runtime import registry
from prsmd.runtime.base import Runtime
from prsmd.runtime.process_runs import end_unmanaged, supervisors
from prsmd.settings import Settings
from prsmd.store.errors import StoreNotItsOwnError

log = logging.getLogger(__name__)
_LOST = (
    "{folder} holds nothing, but {found}: its content was lost, or another daemon on this machine"
    " calls its folder the same. Put the folder back from a backup. To begin anew:"
    " prsmd --new-instance; docs/operations.md says how to end what still runs."
)
_UNMANAGED = (
    "models that this instance launched run on, but their folders are gone from {folder}:"
    " {problem}. End them by hand (kill -9 PID), or put the folder back from a backup."
)


async def choose_runtime(
    settings: Settings, instance: str, in_use: str | None = None, *, first: bool = False
) -> Runtime:
    """Return the configured runtime; `auto` is Docker where an engine answers, else processes.

    While replicas exist, `auto` stays with the runtime `in_use`: an engine that is only late or
    down must not have its containers taken for lost. At the `first` start of an instance, no other
    one may have launched from the same state folder. At every start, what the instance launched as
    processes and whose run folders are gone is ended: it can be managed no more.

    Raises:
        StoreNotItsOwnError: one has, so the folder was emptied; or what has to end does not.
    """
    name, folder = settings.runtime.name, settings.daemon.state_dir
    if first:
        await asyncio.to_thread(_refuse_former_processes, folder)
    await asyncio.to_thread(_end_unmanaged, folder / "runs", instance)
    if name == "auto" and in_use is not None:
        name = "docker" if in_use == "docker" else "process"
    if name in {"auto", "docker"}:
        docker = registry.make("docker", _docker_settings(settings, instance))
        if first:
            await _refuse_former(docker, folder)
        if name == "docker":
            return docker
        try:
            await docker.list()
        except EngineError as error:
            await docker.close()
            log.info("no container engine: %s", error.message)
        else:
            return docker
    log.warning(
        "models run as plain processes of this user: the embedded runtime isolates nothing."
        " Use a container engine for anything but trying out and development"
    )
    return registry.make("process", _process_settings(settings, instance))


async def _refuse_former(docker: Any, folder: Path) -> None:
    try:
        former = await docker.former_instances()
    except EngineError as error:
        log.info("whether models of before run is not known: %s", error.message)
        return
    if former:
        await docker.close()
        names = ", ".join(sorted(former))
        found = f"the engine has containers that were launched from it, of {names}"
        raise StoreNotItsOwnError(_LOST.format(folder=folder, found=found))


def _refuse_former_processes(folder: Path) -> None:
    former = supervisors(folder / "runs")
    if former:
        names = ", ".join(map(str, sorted(former)))
        found = f"models that were launched from it run on as processes of supervisor {names}"
        raise StoreNotItsOwnError(_LOST.format(folder=folder, found=found))


def _end_unmanaged(runs: Path, instance: str) -> None:
    try:
        ended = end_unmanaged(runs, instance)
    except EngineError as error:
        message = _UNMANAGED.format(folder=runs, problem=error.message)
        raise StoreNotItsOwnError(message) from error
    if ended:
        names = ", ".join(map(str, sorted(ended)))
        log.error("%s was lost: models that ran from it, of supervisor %s, were ended", runs, names)


def _name_of(folder: Path) -> str:
    """Return a name of a state folder's place, on this machine and no other.

    One that was deleted and made again has the same: what ran from it is still to be found.
    """
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        machine = ""
    text = f"{machine or socket.gethostname()} {folder.resolve()}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _docker_settings(settings: Settings, instance: str) -> object:
    from prsmd.runtime.docker_config import DockerSettings  # noqa: PLC0415 - only where used

    section = settings.runtime
    return DockerSettings(
        instance=instance,
        base_url=section.docker_url,
        timeout_seconds=section.timeout_seconds,
        network_prefix=section.network_prefix,
        secrets_dir=section.secrets_dir,
        default_class=section.default_class,
        state=_name_of(settings.daemon.state_dir),
    )


def _process_settings(settings: Settings, instance: str) -> object:
    from prsmd.runtime.process import ProcessSettings  # noqa: PLC0415 - only where used

    return ProcessSettings(
        instance=instance,
        state_dir=settings.daemon.state_dir / "runs",
        bundle_dirs=settings.runtime.bundle_dirs,
        timeout_seconds=settings.runtime.timeout_seconds,
    )
