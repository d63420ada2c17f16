"""Decides how a replica becomes a container: names, labels, limits and hardened defaults.

Pure translation into the JSON of the Docker Engine API (v1.41; Podman's compatible API reads the
same). Does not talk to an engine.
"""

import dataclasses
import hashlib
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prsmd.domain.quantity import MIB

from .base import Labels, Launch
from .environment import SECRETS_FOLDER, container_environment

LABEL = "prsmd."
PORT_LABEL = LABEL + "port"
INSTANCE_LABEL = LABEL + "instance"
STATE_LABEL = LABEL + "state"
BRIDGES = ("prsmi-", "prsmx-")  # beginnings of bridges' names: of internal networks, of others
_SHARED_BYTES = 64 * MIB  # of /dev/shm; it counts as the container's memory
_LEAST_CPU_MILLIS = 10  # the engine refuses less than a hundredth of a core


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DockerSettings:
    """How to reach one engine and what every container on it gets. Times are seconds.

    `timeout_seconds` bounds a look at the engine, `launch_timeout_seconds` one step of a launch and
    what a stop takes beyond its grace, `pull_silence_seconds` a pull that reports nothing.
    `secrets_dir` is where secrets are while containers run, in memory. `default_class` is the
    engine's runtime for who asks for none; None is the engine's own choice. `state` names the
    folder of the daemon's state, so that a state that was lost can be told from another daemon's.
    """

    instance: str
    base_url: str = "unix:///var/run/docker.sock"
    timeout_seconds: float = 10.0
    launch_timeout_seconds: float = 60.0
    pull_silence_seconds: float = 300.0
    network_prefix: str = "prsmd"
    secrets_dir: Path = Path("/run/prsmd/secrets")
    default_class: str | None = None
    state: str = ""
    log_max_bytes: int = 10 * MIB
    tmp_bytes: int = 256 * MIB
    pids_limit: int = 1024
    ulimits: tuple[tuple[str, int], ...] = (("core", 0),)


def container_name(replica_id: str) -> str:
    """Return the name of a replica's container, one to one, so that a replica exists only once."""
    return f"prsmd-{replica_id}"


def network_name(prefix: str, organization: str, *, egress: bool = False) -> str:
    """Return the organization's network: readable, and distinct even where names look alike."""
    readable = re.sub(r"[^a-z0-9]+", "-", organization.lower()).strip("-")[:24]
    digest = hashlib.sha256(organization.encode()).hexdigest()[:10]
    parts = (prefix, readable, digest, "egress" if egress else "")
    return "-".join(part for part in parts if part)


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a container finds beside its image.

    `secrets` is the folder on the host that holds its secrets. `volumes` are the places that its
    image would have the engine keep on the host's disk, writable and without a bound. `variables`
    are those that its image sets.
    """

    secrets: Path | None = None
    volumes: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()


_NOTHING = Surroundings()


def network_config(launch: Launch, settings: DockerSettings) -> dict[str, Any]:
    """Return how the network of a container is made, by the SDK's names: internal, or with egress.

    Bridges have names of our own, by which a firewall can tell them from others.
    """
    organization, egress = launch.labels.organization, launch.security.egress
    name = network_name(settings.network_prefix, organization, egress=egress)
    # Interfaces are the whole host's: another engine on it must not come to the same name.
    unique = f"{settings.base_url} {settings.instance} {name}"
    bridge = BRIDGES[egress] + hashlib.sha256(unique.encode()).hexdigest()[:9]
    return {
        "name": name,
        "driver": "bridge",
        "internal": not egress,
        "labels": {INSTANCE_LABEL: settings.instance, LABEL + "organization": organization},
        "check_duplicate": True,
        "options": {
            "com.docker.network.bridge.name": bridge,
            "com.docker.network.bridge.enable_icc": "false",
        },
    }


def container_config(
    launch: Launch, settings: DockerSettings, around: Surroundings = _NOTHING
) -> dict[str, Any]:
    """Return the body of `POST /containers/create` for this launch."""
    environment = container_environment(
        launch,
        host="0.0.0.0",  # noqa: S104 - inside the container's own network namespace
        port=launch.port,
        image=around.variables,
    )
    network = network_config(launch, settings)["name"]
    host = _host_config(launch, settings, around)
    config: dict[str, Any] = {
        "Image": launch.image_digest,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": {**written(launch.labels, launch.port), STATE_LABEL: settings.state},
        "User": f"{launch.security.run_as_user}:{launch.security.run_as_user}",
        "Healthcheck": {"Test": ["NONE"]},  # probing is prsmd's, through the serving protocol
        "HostConfig": {**host, **_network(network, egress=launch.security.egress)},
        "NetworkingConfig": {"EndpointsConfig": {network: {}}},
    }
    if launch.command:
        config["Entrypoint"] = list(launch.command)
    if launch.command or launch.args:
        config["Cmd"] = list(launch.args)
    return config


def runtime_class(launch: Launch, settings: DockerSettings) -> str | None:
    """Return what the engine is to run the container with; None is its own choice."""
    return launch.security.runtime_class or settings.default_class


def _host_config(launch: Launch, settings: DockerSettings, around: Surroundings) -> dict[str, Any]:
    placement, chosen = launch.placement, runtime_class(launch, settings)
    tmp_bytes = min(settings.tmp_bytes, placement.memory_bytes)
    return {
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": not launch.security.writable_root,
        "Tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,size={tmp_bytes}"},  # noqa: S108 - in the container
        "Mounts": _mounts(around, tmp_bytes),
        "IpcMode": "private",
        "CgroupnsMode": "private",  # the engine's default is the host's where there is cgroup v1
        "ShmSize": min(_SHARED_BYTES, placement.memory_bytes),
        # A core would be a copy of a model's memory, written by the host wherever that says.
        "Ulimits": [{"Name": n, "Soft": most, "Hard": most} for n, most in settings.ulimits],
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
        **({} if chosen is None else {"Runtime": chosen}),
    }


def _network(name: str, *, egress: bool) -> dict[str, Any]:
    if egress:
        return {"NetworkMode": name}
    # The engine's resolver forwards names to the host's even from an internal network; a name
    # server that is not there closes that way out, and fails soon for who tries it.
    return {
        "NetworkMode": name,
        "Dns": ["127.0.0.1"],
        "DnsOptions": ["timeout:1", "attempts:1"],
    }


def _mounts(around: Surroundings, tmp_bytes: int) -> list[dict[str, Any]]:
    """Return the secrets, and memory in place of what would be a volume on the host's disk."""
    taken = {"/tmp"} if around.secrets is None else {"/tmp", SECRETS_FOLDER}  # noqa: S108 - in the container
    mounts: list[dict[str, Any]] = [
        {"Type": "tmpfs", "Target": path, "TmpfsOptions": {"SizeBytes": tmp_bytes}}
        for path in sorted({posixpath.normpath(path) for path in around.volumes} - taken)
    ]
    if around.secrets is not None:
        mounts.append(
            {
                "Type": "bind",
                "Source": str(around.secrets),
                "Target": SECRETS_FOLDER,
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rprivate"},
            }
        )
    return mounts


def _device_requests(uuids: tuple[str, ...]) -> list[dict[str, Any]]:
    if not uuids:
        return []
    return [{"DeviceIDs": list(uuids), "Capabilities": [["gpu"]]}]
