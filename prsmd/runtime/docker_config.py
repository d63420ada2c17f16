"""Decides how a replica becomes a container: names, labels, limits and hardened defaults.

Pure translation into the JSON of the Docker Engine API (v1.41; Podman's compatible API reads the
same). Does not talk to an engine.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from prsmd.domain.quantity import MIB

from .base import Labels, Launch
from .environment import container_environment

LABEL = "prsmd."
PORT_LABEL = LABEL + "port"
INSTANCE_LABEL = LABEL + "instance"
_LEAST_CPU_MILLIS = 10  # the engine refuses less than a hundredth of a core


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DockerSettings:
    """How to reach one engine and what every container on it gets. Times are seconds.

    `timeout_seconds` bounds a look at the engine, `launch_timeout_seconds` one step of a launch and
    what a stop takes beyond its grace, `pull_silence_seconds` a pull that reports nothing.
    """

    instance: str
    base_url: str = "unix:///var/run/docker.sock"
    timeout_seconds: float = 10.0
    launch_timeout_seconds: float = 60.0
    pull_silence_seconds: float = 300.0
    network_prefix: str = "prsmd"
    log_max_bytes: int = 10 * MIB
    tmp_bytes: int = 256 * MIB
    pids_limit: int = 1024


def container_name(replica_id: str) -> str:
    """Return the name of a replica's container, one to one, so that a replica exists only once."""
    return f"prsmd-{replica_id}"


def network_name(prefix: str, organization: str) -> str:
    """Return the organization's network: readable, and distinct even where names look alike."""
    readable = re.sub(r"[^a-z0-9]+", "-", organization.lower()).strip("-")[:24]
    digest = hashlib.sha256(organization.encode()).hexdigest()[:10]
    return "-".join(part for part in (prefix, readable, digest) if part)


def written(labels: Labels, port: int) -> dict[str, str]:
    """Return what is written on a container."""
    texts = {
        LABEL + name.replace("_", "-"): str(value)
        for name, value in dataclasses.asdict(labels).items()
    }
    return texts | {PORT_LABEL: str(port)}


def read(texts: Mapping[str, str]) -> Labels | None:
    """Return the labels of a container, or None where prsmd did not write them."""
    names = [field.name for field in dataclasses.fields(Labels)]
    found: dict[str, Any] = {name: texts.get(LABEL + name.replace("_", "-")) for name in names}
    try:
        found |= {"revision": int(found["revision"]), "slot": int(found["slot"])}
    except (TypeError, ValueError):
        return None
    return None if None in found.values() else Labels(**found)


def container_config(launch: Launch, settings: DockerSettings) -> dict[str, Any]:
    """Return the body of `POST /containers/create` for this launch."""
    environment = container_environment(launch, host="0.0.0.0", port=launch.port)  # noqa: S104 - inside the container's own network namespace
    network = network_name(settings.network_prefix, launch.labels.organization)
    config: dict[str, Any] = {
        "Image": launch.image_digest,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": written(launch.labels, launch.port),
        "User": f"{launch.security.run_as_user}:{launch.security.run_as_user}",
        "Healthcheck": {"Test": ["NONE"]},  # probing is prsmd's, through the serving protocol
        "HostConfig": _host_config(launch, settings, network),
        "NetworkingConfig": {"EndpointsConfig": {network: {}}},
    }
    if launch.command:
        config["Entrypoint"] = list(launch.command)
    if launch.command or launch.args:
        config["Cmd"] = list(launch.args)
    return config


def _host_config(launch: Launch, settings: DockerSettings, network: str) -> dict[str, Any]:
    placement = launch.placement
    tmp_bytes = min(settings.tmp_bytes, placement.memory_bytes)
    return {
        "NetworkMode": network,
        # The engine's resolver forwards names to the host's even from an internal network; a name
        # server that is not there closes that way out, and fails soon for who tries it.
        "Dns": ["127.0.0.1"],
        "DnsOptions": ["timeout:1", "attempts:1"],
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": not launch.security.writable_root,
        "Tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,size={tmp_bytes}"},  # noqa: S108 - in the container
        "PidsLimit": settings.pids_limit,
        "Memory": placement.memory_bytes,
        "MemorySwap": placement.memory_bytes,
        "NanoCpus": max(placement.cpu_millis, _LEAST_CPU_MILLIS) * 1_000_000,
        "Init": True,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(max(settings.log_max_bytes // 2, 1)), "max-file": "2"},
        },
        "DeviceRequests": _device_requests(placement.gpu_uuids),
    }


def _device_requests(uuids: tuple[str, ...]) -> list[dict[str, Any]]:
    if not uuids:
        return []
    return [{"DeviceIDs": list(uuids), "Capabilities": [["gpu"]]}]
