"""What a container can reach: no other organization, not the daemon, not the world."""

import pytest

from tests.support import containers
from tests.support.daemon import Daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.engine import PrivateEngine

pytestmark = pytest.mark.engine


def reach(endpoint: str, host: str, port: int) -> str | None:
    """Return what keeps a container from reaching an address; None: it can."""
    answer = containers.ask(endpoint, "POST", "/connect", {"host": host, "port": port})
    error = answer["error"]
    return None if error is None else str(error)


def test_containers_of_two_organizations_cannot_reach_each_other_nor_the_daemon_nor_the_world(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    mine, other = daemon.deploy(deploy_body()), daemon.key("owner", "other-org")
    theirs = daemon.deploy(deploy_body("other-org-model"), key=other)
    here = daemon.until_ready(mine, 1)["replica_details"][0]["endpoint"]
    there = daemon.until_ready(theirs, 1)["replica_details"][0]["endpoint"]
    host, port = there.rsplit(":", 1)
    gateway = ".".join([*here.rsplit(":", 1)[0].split(".")[:3], "1"])

    assert reach(here, *("127.0.0.1", 8080)) is None, "the probe itself does not work"
    assert reach(here, host, int(port)) is not None
    assert reach(here, "192.0.2.1", 80) is not None
    assert containers.ask(here, "POST", "/resolve", {"name": "example.com"})["error"] is not None
    with engine.client() as client:
        networks = [one.attrs for one in client.networks.list() if one.name.startswith("prsmd-")]
    assert len(networks) == 2
    assert all(network["Internal"] for network in networks)
    assert reach(here, gateway, daemon.tcp_port) is not None


def test_a_model_of_another_organization_does_not_exist_for_a_key(daemon: Daemon) -> None:
    mine = daemon.deploy(deploy_body())
    daemon.until_ready(mine, 1)
    other = daemon.key("owner", "other-org")

    for method, path, body in [
        ("POST", "/v1/models/custom_model/infer", {"inputs": 1}),
        ("GET", "/v1/custom-models/custom_model", None),
        ("POST", "/v1/custom-models/custom_model/scale", {"target_replicas": 2}),
        ("DELETE", "/v1/custom-models/custom_model", None),
        ("GET", f"/v1/custom-models/deployments/{mine}", None),
        ("GET", f"/v1/custom-models/deployments/{mine}/logs", None),
        ("GET", f"/v1/custom-models/deployments/{mine}/events", None),
    ]:
        theirs = daemon.call(method, path, body, key=other)
        never = daemon.call(
            method, path.replace("custom_model", "never").replace(mine, "never"), body, key=other
        )
        assert (theirs.status, never.status) == (404, 404), path
        assert theirs.json["error"]["code"] == never.json["error"]["code"]
    assert daemon.call("GET", "/v1/custom-models", key=other).json["total"] == 0
    assert daemon.status(mine)["replicas"]["ready"] == 1
