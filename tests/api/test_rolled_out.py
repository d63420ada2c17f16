"""An update of a model that runs, on the embedded runtime, with requests in between."""

from collections.abc import Iterator

import pytest

from tests.api.conftest import SETTINGS, small
from tests.api.document import INFER
from tests.support.daemon import Daemon, running_daemon

ONE = "/v1/custom-models/custom_serving_model"


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("rolled"), SETTINGS) as daemon:
        yield daemon


def test_a_model_is_updated_while_it_answers_and_goes_back_in_one_call(daemon: Daemon):
    deployment = daemon.deploy(small("serving-model"))
    daemon.until_ready(deployment, 1)
    daemon.until_event(deployment, "Ready")

    def until(phase: str) -> None:
        def reached() -> bool:
            assert daemon.infer("custom_serving_model", INFER["inputs"]).status == 200
            return bool(daemon.call("GET", ONE + "/rollout").json["rollout"]["phase"] == phase)

        daemon.until(f"the rollout is {phase}", reached)

    patch = {"deployment_config": {"environment": {"COLOUR": "green"}}}
    assert daemon.call("PUT", ONE, patch).status == 202
    until("completed")
    versions = daemon.call("GET", ONE + "/versions").json["versions"]
    assert [(item["version"], item["state"]) for item in versions] == [
        ("1.0.1", "current"),
        ("1.0.0", "replaced"),
    ]
    assert all(item["good_at"] for item in versions)
    assert daemon.call("POST", ONE + "/rollback").json["version"] == "1.0.0"
    until("completed")
    shown = daemon.call("GET", ONE).json
    assert (shown["revision"], shown["version"]) == (3, "1.0.0")
    status = daemon.status(deployment)
    assert status["rollout"]["outcome"] == "revision 3 has taken over"
    assert [r["revision"] for r in status["replica_details"] if r["ready"]] == [3]
