"""Owns the networks of one instance's organizations on an engine.

One is made when a container needs it and removed with its last container: an engine has addresses
for some thirty networks only, unless it is told otherwise. Blocking.
"""

import collections
import contextlib
import threading
from collections.abc import Iterator

from prsmd.domain.errors import EngineError

from .base import Launch
from .docker_config import INSTANCE_LABEL, DockerSettings, network_config, network_name
from .docker_connection import Client, refusal_status, refusal_words, unless_gone

_NO_ADDRESSES = ("non-overlapping", "fully subnetted", "could not find free subnet")


class Networks:
    """The networks of one instance."""

    def __init__(self, settings: DockerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._awaited: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def for_launch(self, client: Client, launch: Launch) -> Iterator[None]:
        """Have the container's network there, and keep it until the launch has ended."""
        name = network_config(launch, self._settings)["name"]
        with self._lock:
            self._awaited[name] += 1
            try:
                self._ensure(client, launch)
            except BaseException:
                self._awaited[name] -= 1
                raise
        try:
            yield
        finally:
            with self._lock:
                self._awaited[name] -= 1

    def leave(self, client: Client, organization: str) -> None:
        """Remove the organization's networks that no container is on."""
        prefix = self._settings.network_prefix
        with self._lock:
            for egress in (False, True):
                self._remove(client, network_name(prefix, organization, egress=egress))

    def _ensure(self, client: Client, launch: Launch) -> None:
        config = network_config(launch, self._settings)
        name, internal = config["name"], config["internal"]
        # Looked for each time: someone may have pruned it.
        if not any(network["Name"] == name for network in client.networks(names=[name])):
            try:
                client.create_network(**config)
            except OSError as error:
                if not any(words in refusal_words(error) for words in _NO_ADDRESSES):
                    raise
                self._make_room(client, launch.labels.organization)
                client.create_network(**config)
        if client.inspect_network(name)["Internal"] != internal:
            kind = "not internal" if internal else "internal"
            raise EngineError(f"network {name} exists but is {kind}: remove it")

    def _make_room(self, client: Client, organization: str) -> None:
        """Remove a network that a crash left. EngineError where there is none."""
        label = f"{INSTANCE_LABEL}={self._settings.instance}"
        ours = [network["Name"] for network in client.networks(filters={"label": label})]
        if not any(self._remove(client, name) for name in ours):
            raise EngineError(
                f"the engine has no addresses left for the network of {organization}: it has"
                f" {len(client.networks())} networks, {len(ours)} of them for models. Give it more:"
                ' "default-address-pools" in /etc/docker/daemon.json (docs/operations.md)'
            )

    def _remove(self, client: Client, name: str) -> bool:
        """Remove a network of ours that nothing is on and no launch waits for."""
        if self._awaited[name]:
            return False
        found = unless_gone(lambda: client.inspect_network(name)) or {}
        instance = (found.get("Labels") or {}).get(INSTANCE_LABEL)
        if instance != self._settings.instance or found.get("Containers"):
            return False
        try:
            client.remove_network(name)
        except OSError as error:  # something joined it, or somebody removed it, just now
            if refusal_status(error) not in {403, 404, 409}:
                raise
            return False
        return True
