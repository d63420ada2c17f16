"""Chooses the runtime that replicas run on, and makes it from its section of the settings."""

import logging

from prsmd.domain.errors import EngineError
from prsmd.runtime import registry
from prsmd.runtime.base import Runtime
from prsmd.settings import Settings

log = logging.getLogger(__name__)


async def choose_runtime(settings: Settings, instance: str, in_use: str | None = None) -> Runtime:
    """Return the configured runtime; `auto` is Docker where an engine answers, else processes.

    While replicas exist, `auto` stays with the runtime `in_use`: an engine that is only late or
    down must not have its containers taken for lost.
    """
    name = settings.runtime.name
    if name == "auto" and in_use is not None:
        name = "docker" if in_use == "docker" else "process"
    if name in {"auto", "docker"}:
        docker = registry.make("docker", _docker_settings(settings, instance))
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
    )


def _process_settings(settings: Settings, instance: str) -> object:
    from prsmd.runtime.process import ProcessSettings  # noqa: PLC0415 - only where used

    return ProcessSettings(
        instance=instance,
        state_dir=settings.daemon.state_dir / "runs",
        bundle_dirs=settings.runtime.bundle_dirs,
        timeout_seconds=settings.runtime.timeout_seconds,
    )
