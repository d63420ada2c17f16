"""The Docker driver: prsmd's verbs on one Docker Engine, or on Podman's compatible API.

The only file that knows the Docker SDK. Decides nothing: how a container looks is decided in
`docker_config.py`, what the engine answers is read in `docker_reading.py`, images and networks are
`docker_images.py`'s and `docker_networks.py`'s, and threads, time limits and translated errors
`docker_connection.py`'s.
"""

import contextlib
import functools
import json
import re
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path
from typing import Any

from prsmd.domain.errors import (
    EngineError,
    EngineUnreachableError,
    ImageUnavailableError,
    PrsmdError,
)

from . import docker_reading as reading
from .base import Container, ContainerState, Launch, LogLine, LogQuery
from .docker_config import (
    INSTANCE_LABEL,
    STATE_LABEL,
    DockerSettings,
    Surroundings,
    container_config,
    container_name,
    runtime_class,
)
from .docker_connection import Client, Connections, refusal_status, refusal_words, unless_gone
from .docker_images import DockerImages
from .docker_networks import Networks
from .secret_files import SecretFiles

_FRESH_SECONDS = 60.0  # how long a running container's pid and address are believed
_OLDEST_API = "1.40"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class DockerRuntime:
    """Containers of one instance on one engine. Connects on first use."""

    name = "docker"
    isolates = True

    def __init__(self, settings: DockerSettings) -> None:
        self._settings = settings
        self._engine = Connections(settings, functools.partial(_connect, settings.base_url))
        self._seen: dict[str, tuple[object, float, Container]] = {}
        self._networks = Networks(settings)
        self._secrets = SecretFiles(settings.secrets_dir, settings.instance)
        self.images = DockerImages(self._engine, settings.base_url, _credentials)

    async def list(self) -> list[Container]:
        """Return this instance's containers: one call to the engine while nothing changes."""
        return [*await self._engine.looking.call("list containers", self._list)]

    async def former_instances(self) -> set[str]:
        """Return the other instances whose containers were launched from the same state folder."""
        return await self._engine.looking.call("list containers of others", self._former)

    async def launch(self, launch: Launch) -> Container:
        """Create and start the replica's container, or return the one that exists."""
        what = f"launch {launch.labels.replica}"
        return await self._engine.changing.call(what, lambda client: self._launch(client, launch))

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        """Stop and remove the container. Refuses one that this instance did not make."""

        def stop(client: Client) -> None:
            container = self._ours(client, container_id)
            client.stop(container_id, timeout=max(0, round(grace_seconds)))
            client.remove_container(container_id, force=True, v=True)
            self._secrets.forget(container.labels.replica)
            self._networks.leave(client, container.labels.organization)

        await self._engine.changing.call(
            f"stop {container_id[:12]}",
            lambda client: unless_gone(lambda: stop(client)),
            extra_seconds=grace_seconds,
        )

    async def logs(self, container_id: str, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        """Yield the container's lines; see `Runtime.logs`."""
        what = f"logs of {container_id[:12]}"
        await self._engine.looking.call(what, lambda client: self._ours(client, container_id))
        options: dict[str, Any] = {"stdout": 1, "stderr": 1, "timestamps": 1}
        options |= {
            "follow": int(query.follow),
            "tail": "all" if query.tail is None else query.tail,
        }
        since = 0.0 if query.since is None else query.since
        if since:
            options["since"] = f"{since:.9f}"  # of which Podman reads whole seconds only
        frames = reading.LogFrames()
        path = f"/containers/{container_id}/logs"
        async with self._engine.watch(what, path, options) as chunks:
            async for chunk in chunks:
                for line in frames.feed(chunk):
                    if since <= line.at:
                        yield line
        for line in frames.rest():
            yield line

    async def events(self) -> AsyncGenerator[None, None]:
        """Yield once when subscribed, then whenever a container of this instance changed."""
        filters = {"type": ["container"], "label": [f"{INSTANCE_LABEL}={self._settings.instance}"]}
        options = {"filters": json.dumps(filters)}
        async with self._engine.watch("events", "/events", options) as chunks:
            yield None
            with contextlib.suppress(EngineUnreachableError):  # the engine went: that ends it
                async for _ in chunks:
                    self._seen = {}
                    yield None

    async def close(self) -> None:
        """End streams and release threads. Containers go on running."""
        self._engine.close()

    def _former(self, client: Client) -> set[str]:
        if not self._settings.state:
            return set()
        label = f"{STATE_LABEL}={self._settings.state}"
        entries = client.containers(all=True, filters={"label": label})
        found = {str((entry.get("Labels") or {}).get(INSTANCE_LABEL, "")) for entry in entries}
        return found - {"", self._settings.instance}

    def _list(self, client: Client) -> tuple[Container, ...]:
        label = f"{INSTANCE_LABEL}={self._settings.instance}"
        settled = self._secrets.settled()
        entries = client.containers(all=True, filters={"label": label})
        found: dict[str, Container] = {}
        for entry in entries:
            container = self._look(client, entry)
            if container is not None:
                found[container.id] = container
        self._seen = {id_: seen for id_, seen in self._seen.items() if id_ in found}
        self._secrets.sweep(settled, {one.labels.replica for one in found.values()})
        return (*found.values(),)

    def _look(self, client: Client, entry: Mapping[str, Any]) -> Container | None:
        networks = (entry.get("NetworkSettings") or {}).get("Networks") or {}
        key = (entry["State"], [network.get("IPAddress") for network in networks.values()])
        id_, now = entry["Id"], time.monotonic()
        seen = self._seen.get(id_)
        if seen is not None and seen[0] == key and now < seen[1]:
            return seen[2]
        raw = unless_gone(lambda: client.inspect_container(id_))
        container = reading.container(raw, self._settings.instance) if raw else None
        if raw and container is not None and raw["State"]["Status"] == entry["State"]:
            ended = container.state is ContainerState.EXITED
            fresh_until = now + (float("inf") if ended else _FRESH_SECONDS)
            self._seen[id_] = key, fresh_until, container
        return container

    def _launch(self, client: Client, launch: Launch) -> Container:
        name = container_name(launch.labels.replica)
        self._refuse_unknown_class(client, launch)
        with self._networks.for_launch(client, launch), self._secrets_of(launch) as secrets:
            if not self._create(client, launch, name, secrets) and secrets is not None:
                self._secrets.take_back(secrets)  # the one that exists has its own
            return self._started(client, launch, name)

    @contextlib.contextmanager
    def _secrets_of(self, launch: Launch) -> Iterator[Path | None]:
        """Give the folder of the secrets. After a failure a sweep tells whether anyone has it."""
        if not launch.secrets:
            yield None
            return
        folder = self._secrets.give(launch.labels.replica, launch.secrets)
        try:
            yield folder
        finally:
            self._secrets.settle(folder)

    def _create(self, client: Client, launch: Launch, name: str, secrets: Path | None) -> bool:
        """Create the container; False where one of that name exists."""
        try:
            raw = client.inspect_image(launch.image_digest)
            image = raw.get("Config") or {}
            around = Surroundings(
                secrets=secrets,
                volumes=(*(image.get("Volumes") or {}),),
                variables=tuple(text.partition("=")[0] for text in image.get("Env") or ()),
            )
            client.create_container_from_config(
                container_config(launch, self._settings, around), name
            )
        except OSError as error:
            status = refusal_status(error)
            if status == 404:
                raise _missing(error, launch.image_digest) from error
            # Podman says 500 where Docker says 409.
            if status != 409 and "already in use" not in refusal_words(error):
                raise
            return False
        return True

    def _started(self, client: Client, launch: Launch, name: str) -> Container:
        container = self._existing(client, name, launch)
        if container.state is ContainerState.CREATED:
            client.start(container.id)
            container = self._existing(client, name, launch)
        return container

    def _existing(self, client: Client, name: str, launch: Launch) -> Container:
        container = reading.container(client.inspect_container(name), self._settings.instance)
        if container is None or container.labels != launch.labels:
            raise EngineError(f"a container named {name} exists and is not this replica's")
        return container

    def _ours(self, client: Client, container_id: str) -> Container:
        if _ID.fullmatch(container_id) is None:
            raise EngineError(f"not a container id: {container_id[:80]!r}")
        container = reading.container(
            client.inspect_container(container_id), self._settings.instance
        )
        if container is None:
            raise EngineError(f"container {container_id[:12]} is not of this instance: left alone")
        return container

    def _refuse_unknown_class(self, client: Client, launch: Launch) -> None:
        wanted = runtime_class(launch, self._settings)
        if wanted is None:
            return
        known = client.info().get("Runtimes") or {}
        if wanted not in known:
            raise EngineError(
                f"the engine has no runtime class {wanted}; it has {', '.join(sorted(known))}"
            )


def _connect(base_url: str, timeout_seconds: float, threads: int) -> Client:
    from docker import APIClient  # noqa: PLC0415 - 20 MB that the other runtimes do without

    # With version="auto" the constructor asks, and forgets its open connection when that fails.
    seconds: Any = timeout_seconds  # requests takes fractions too
    with contextlib.closing(APIClient(base_url, _OLDEST_API, timeout=seconds)) as asking:
        version = asking.version(api_version=False)["ApiVersion"]
    return APIClient(base_url, version, timeout=seconds, max_pool_size=threads)


def _credentials(client: Client, repository: str) -> Mapping[str, str | bytes]:
    """Return the header that logs in to the repository's registry, from Docker's own settings."""
    from docker import auth  # noqa: PLC0415 - as above

    client.reload_config()  # someone may have logged in since
    registry, _ = auth.resolve_repository_name(repository)
    header = auth.get_config_header(client, registry)
    return {"X-Registry-Auth": header} if header else {}


def _missing(error: OSError, image_digest: str) -> PrsmdError:
    words = refusal_words(error)
    if "image" in words.lower():
        return ImageUnavailableError(f"image {image_digest} is not here: {words}")
    return EngineError(words)
