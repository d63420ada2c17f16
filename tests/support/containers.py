"""What a test sees and does on the engine behind prsmd's back."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

from docker.models.containers import Container

from tests.support.engine import MODEL_IMAGE, PrivateEngine

INSTANCE = "prsmd.instance"
REPLICA = "prsmd.replica"


def running(engine: PrivateEngine) -> list[str]:
    """Return the ids of all running containers that prsmd's labels are on, sorted."""
    with engine.client() as client:
        return sorted(one.id for one in client.containers.list(filters={"label": REPLICA}))


def everything(engine: PrivateEngine) -> list[str]:
    """Return the ids of all containers with prsmd's labels, running or not, sorted."""
    with engine.client() as client:
        found = client.containers.list(all=True, filters={"label": REPLICA}, ignore_removed=True)
        return sorted(one.id for one in found)


def kill(engine: PrivateEngine, container_id: str) -> None:
    """Kill a container by hand."""
    with engine.client() as client:
        client.containers.get(container_id).kill()


def pid(engine: PrivateEngine, container_id: str) -> int:
    """Return the id of a container's first process, as the host counts."""
    with engine.client() as client:
        return int(client.containers.get(container_id).attrs["State"]["Pid"])


def ask(endpoint: str, method: str, path: str, body: Any = None) -> Any:
    """Make a request to a container's own address, past the daemon; return its JSON."""
    host, port = endpoint.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, None if body is None else json.dumps(body))
        return json.loads(connection.getresponse().read())


@contextlib.contextmanager
def foreign_containers(engine: PrivateEngine, instance: str) -> Iterator[list[str]]:
    """Run three containers that are none of this instance's; assert in the end that they still do.

    One was started by hand; one has the labels of another prsmd; one has this instance's labels
    copied onto it.
    """
    labels = {
        "prsmd.organization": "company",
        "prsmd.deployment": "deploy_foreign",
        "prsmd.revision": "1",
        "prsmd.slot": "0",
        "prsmd.spec-hash": "0",
    }
    others: list[dict[str, str]] = [
        {},
        {**labels, INSTANCE: "inst_another", "prsmd.replica": "foreign-1-0-a"},
        {**labels, INSTANCE: instance, "prsmd.replica": "foreign-1-0-b"},
    ]
    with engine.client() as client:
        started: list[Container] = [
            client.containers.run(
                MODEL_IMAGE, ["sleep", "600"], detach=True, network_mode="none", labels=each
            )
            for each in others
        ]
        try:
            yield [one.id for one in started]
            for one in started:
                one.reload()
                assert one.status == "running", one.attrs["State"]
                assert one.attrs["RestartCount"] == 0
        finally:
            for one in started:
                one.remove(force=True)


def instance_of(engine: PrivateEngine, container_id: str) -> str:
    """Return which prsmd made a container."""
    with engine.client() as client:
        return str(client.containers.get(container_id).labels[INSTANCE])
