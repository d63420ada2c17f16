"""Updates over HTTP: in place and by rollout, by hand, back again; conditions; what is refused.

The model is scaled to zero, so that a rollout waits where a test wants to look at it.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.conftest import Site, small
from tests.api.document import DEPLOY
from tests.api.envelope import problem_fields, refused
from tests.support.daemon import Answer

NAME = "changing-model"
ONE = "/v1/custom-models/custom_changing_model"
CPU = {"deployment_config": {"resource_requirements": {"cpu": "200m"}}}
MAX = {"deployment_config": {"scaling": {"max_replicas": 5}}}


class Model:
    """A model of its own for each test."""

    def __init__(self, site: Site, deployment: str) -> None:
        self.site = site
        self.deployment = deployment

    def call(self, method: str, path: str = "", body: Any = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.site.daemon.call(method, ONE + path, body, headers=named)

    def update(self, body: Any = CPU, status: int = 202, **rollout: Any) -> Any:
        answer = self.call("PUT", "", {**body, **({"rollout": rollout} if rollout else {})})
        assert answer.status == status, answer
        return answer.json

    def phase(self, phase: str) -> Any:
        """Return the rollout as soon as it is in this phase."""

        def reached() -> Any:
            found = self.call("GET", "/rollout").json
            return found if found["rollout"]["phase"] == phase else None

        return self.site.daemon.until(f"the rollout is {phase}", reached)

    def rows(self) -> Any:
        rows = self.site.rows()
        return [rows[table] for table in ("deployments", "revisions", "rollouts", "events")]


@pytest.fixture
def model(site: Site) -> Iterator[Model]:
    deployment = site.daemon.deploy(small(NAME, min_replicas=0))
    yield Model(site, deployment)
    site.daemon.call("DELETE", ONE)
    site.daemon.until("it is gone", lambda: site.daemon.call("GET", ONE).status == 404)


def test_a_change_that_needs_no_container_is_done_at_once(model: Model):
    answer = model.call("PUT", "", MAX)

    assert (answer.status, answer.headers["ETag"]) == (200, '"2"')
    assert answer.json == {
        "deployment_id": model.deployment,
        "model_id": "custom_changing_model",
        "status": "updated",
        "endpoint_url": answer.json["endpoint_url"],
        "revision": 2,
        "previous_revision": 1,
        "version": "1.0.0",
        "in_place": True,
        "changes": [{"field": "deployment_config.scaling.max_replicas", "before": 2, "after": 5}],
        "rollout": None,
        "message": "",
        "reasons": [],
    }
    shown = model.call("GET")
    assert shown.headers["ETag"] == '"2"'
    assert shown.json["deployment_config"]["scaling"]["max_replicas"] == 5
    assert shown.json["traffic"] == [{"revision": 2, "version": "1.0.0", "weight": 100}]


def test_the_request_that_deployed_a_model_is_an_update_too(model: Model):
    whole = small(NAME, min_replicas=0)
    whole["deployment_config"]["scaling"]["max_replicas"] = 7
    done = model.update(whole, 200)  # its image was never resolved: nothing to resolve again

    fields = [change["field"] for change in done["changes"]]
    assert fields == ["deployment_config.scaling.max_replicas"]


def test_what_is_so_already_is_answered_so(model: Model):
    done = model.update({"model_type": "custom", "rollout": {"strategy": "recreate"}}, 200)

    assert (done["status"], done["revision"], done["changes"]) == ("unchanged", 1, [])


def test_a_canary_is_shown_divided_paused_promoted_and_aborted(model: Model):
    accepted = model.update(strategy="canary", canary={"steps": [5, 50]}, promotion="manual")

    assert (accepted["status"], accepted["revision"], accepted["version"]) == (
        "updating",
        2,
        "1.0.1",
    )
    begun = accepted["rollout"]
    assert (begun["strategy"], begun["phase"], begun["steps"]) == ("canary", "preparing", [5, 50])
    assert (begun["from_revision"], begun["from_version"]) == (1, "1.0.0")
    assert (begun["to_revision"], begun["to_version"], begun["number"]) == (2, "1.0.1", 1)
    assert begun["options"]["promotion"] == "manual"
    trying = model.phase("trying")
    assert "scaled to zero" in trying["rollout"]["waiting_for"]
    assert trying["traffic"] == [
        {"revision": 2, "version": "1.0.1", "weight": 0},
        {"revision": 1, "version": "1.0.0", "weight": 100},
    ]
    divided = model.call("PUT", "/traffic", {"weights": {"1": 70, "2": 30}})
    assert (divided.status, divided.headers["ETag"]) == (200, '"2"')
    assert [share["weight"] for share in divided.json["traffic"]] == [30, 70]
    status = model.site.daemon.status(model.deployment)
    assert status["rollout"]["weight"] == 30
    assert [share["weight"] for share in status["traffic"]] == [30, 70]
    paused = model.call("POST", "/rollout/pause").json
    assert (paused["changed"], paused["rollout"]["paused"]) == (True, True)
    assert not model.call("POST", "/rollout/pause", {}).json["changed"]
    assert not model.call("POST", "/rollout/resume").json["rollout"]["paused"]
    promoted = model.call("POST", "/rollout/promote")
    assert (promoted.status, promoted.json["rollout"]["phase"]) == (200, "replacing")
    refused(model.call("POST", "/rollout/promote"), 409, "CONFLICT")
    aborted = model.call("POST", "/rollout/abort")
    assert (aborted.json["revision"], aborted.headers["ETag"]) == (1, '"1"')
    assert aborted.json["rollout"]["phase"] == "aborted"
    assert model.call("GET").json["version"] == "1.0.0"
    reasons = [event["reason"] for event in model.site.daemon.events(model.deployment)]
    assert reasons[-5:] == [
        "TrafficSet",
        "RolloutPaused",
        "RolloutResumed",
        "Promoted",
        "RolloutAborted",
    ]


def test_history_and_differences_are_shown(model: Model):
    model.update(MAX, 200)
    model.update({"deployment_config": {"environment": {"TOKEN": "s3cret"}}})
    model.call("POST", "/rollout/abort")

    found = model.call("GET", "/versions")
    assert [one["revision"] for one in found.json["versions"]] == [3, 2, 1]
    newest, current, first = found.json["versions"]
    assert (newest["state"], newest["why"]) == ("aborted", "updated")
    assert (current["state"], first["state"], first["why"]) == ("current", "replaced", "deployed")
    assert current["changes"][0]["field"] == "deployment_config.scaling.max_replicas"
    assert first["created_by"].startswith("uid:")
    assert set(first) == {
        *("revision", "version", "state", "reason", "why", "container_image", "image_digest"),
        *("created_at", "created_by", "good_at", "changes"),
    }
    assert (found.json["total"], found.json["has_more"]) == (3, False)
    page = model.call("GET", "/versions?limit=1&offset=1").json
    assert ([one["revision"] for one in page["versions"]], page["has_more"]) == ([2], True)
    diff = model.call("GET", "/diff?from=1&to=3")
    assert {change["field"]: change["after"] for change in diff.json["changes"]} == {
        "deployment_config.scaling.max_replicas": 5,
        "deployment_config.environment.TOKEN": "<hidden>",
        "model_metadata.version": "1.0.1",
    }
    assert b"s3cret" not in found.raw + diff.raw + model.call("GET").raw


def test_a_rollback_names_where_it_goes(model: Model):
    model.update(MAX, 200)
    back = model.call("POST", "/rollback", {"revision": 1})
    assert (back.status, back.json["status"], back.json["revision"]) == (200, "updated", 3)
    again = model.call("POST", "/rollback", {"version": "1.0.0"})
    assert again.json["status"] == "unchanged"
    model.update(CPU)
    aborted = model.call("POST", "/rollback")
    assert (aborted.status, aborted.json["revision"]) == (202, 3)
    assert aborted.json["rollout"]["phase"] == "aborted"
    assert aborted.json["changes"] == []


def test_a_rollback_to_nothing_is_refused(model: Model):
    before = model.rows()

    refused(model.call("POST", "/rollback"), 409, "CONFLICT")
    missing = model.call("POST", "/rollback", {"revision": 7})
    refused(missing, 404, "NOT_FOUND")
    assert "its revisions are 1 (1.0.0)" in missing.json["message"]
    refused(model.call("POST", "/rollback", {"version": "3.0.0"}), 404, "NOT_FOUND")
    assert model.rows() == before


CHANGES = [
    ("PUT", "", MAX),
    ("POST", "/rollback", {"revision": 1}),
    ("POST", "/scale", {"target_replicas": 1}),
    ("PUT", "/traffic", {"weights": {"1": 100}}),
    ("POST", "/rollout/pause", None),
    ("POST", "/rollout/abort", None),
    ("DELETE", "", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES, ids=lambda value: str(value)[:30])
def test_a_change_upon_what_is_no_longer_so_is_refused(model: Model, method, path, body):
    before = model.rows()
    answer = model.call(method, path, body, If_Match='"7"')

    refused(answer, 412, "PRECONDITION_FAILED")
    assert answer.json["error"]["details"]["current_revision"] == 1
    assert model.rows() == before


@pytest.mark.parametrize("condition", ['"1"', "*", '"7", "1"'])
def test_a_change_upon_what_is_so_is_made(model: Model, condition):
    assert model.call("PUT", "", MAX, If_Match=condition).status == 200


@pytest.mark.parametrize("condition", ["1", 'W/"1"', '"one"', '"0"', '"1"; x', ""])
def test_what_is_no_etag_is_refused(model: Model, condition):
    before = model.rows()
    answer = model.call("PUT", "", MAX, If_Match=condition)

    refused(answer, 400, "INVALID_INPUT")
    assert problem_fields(answer) == ["If-Match"]
    assert model.rows() == before


def test_the_same_update_sent_twice_is_done_once(model: Model):
    keyed = {"Idempotency_Key": "update-1", "If_Match": '"1"'}
    first, second = (model.call("PUT", "", MAX, **keyed) for _ in range(2))

    assert (first.status, first.json, first.headers["ETag"]) == (
        second.status,
        second.json,
        second.headers["ETag"],
    )
    assert model.call("GET", "/versions").json["total"] == 2


WRONG = [
    ("PUT", "", {"rollout": {"strategy": "canary", "canary": {"steps": [10, 500]}}}),
    ("PUT", "", {"deployment_config": {"scaling": {"min_replicas": 3}}}),
    ("PUT", "", {"deployment_config": {"container_image": None}}),
    ("PUT", "", {"model_name": "another"}),
    ("PUT", "", {"deployment_config": {"imag": None}}),
    ("PUT", "", []),
    ("PUT", "", b"{"),
    ("PUT", "?dry=1", MAX),
    ("POST", "/rollback", {"revision": 1, "version": "1.0.0"}),
    ("POST", "/rollback", {"revision": "1"}),
    ("POST", "/rollback", {"to": 1}),
    ("PUT", "/traffic", {"weights": {"1": 99}}),
    ("PUT", "/traffic", {"weights": {"new": 100}}),
    ("PUT", "/traffic", {}),
    ("POST", "/rollout/pause", {"why": "x"}),
    ("POST", "/rollout/abort?now=1", None),
    ("POST", "/rollout/resume", b"[]"),
    ("GET", "/versions?limit=0", None),
    ("GET", "/versions?sort_by=version", None),
    ("GET", "/versions?offset=-1", None),
    ("GET", "/diff?from=0", None),
    ("GET", "/diff?to=one", None),
    ("GET", "/diff?before=1", None),
    ("GET", "/rollout?x=1", None),
]


@pytest.mark.parametrize(
    ("method", "path", "body"), WRONG, ids=lambda value: str(value)[:60] if value else "-"
)
def test_a_wrong_request_is_refused_by_name_and_changes_nothing(model: Model, method, path, body):
    before = model.rows()

    refused(model.call(method, path, body), 400, "INVALID_INPUT")

    assert model.rows() == before


NOT_NOW = [
    ("POST", "/rollout/pause", None, 409),
    ("POST", "/rollout/resume", None, 409),
    ("POST", "/rollout/promote", None, 409),
    ("POST", "/rollout/abort", None, 409),
    ("PUT", "/traffic", {"weights": {"2": 100}}, 409),
    ("PUT", "", {"deployment_config": {"resource_requirements": {"cpu": "9000"}}}, 503),
    ("GET", "/rollout", None, 404),
    ("GET", "/diff?from=1&to=9", None, 404),
    ("POST", "/rollout/undo", None, 404),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), NOT_NOW, ids=str)
def test_what_cannot_be_done_now_is_refused_in_words(model: Model, method, path, body, status):
    before = model.rows()
    answer = model.call(method, path, body)

    codes = {409: "CONFLICT", 404: "NOT_FOUND", 503: "RESOURCE_UNAVAILABLE"}
    refused(answer, status, codes[status])
    assert model.rows() == before


def test_deploying_a_name_that_exists_points_to_the_update(model: Model):
    answer = model.site.daemon.call("POST", "/v1/custom-models/deploy", small(NAME))

    refused(answer, 409, "CONFLICT")
    assert f"PUT {ONE}" in answer.json["message"]
    assert f"prsmctl update {NAME}" in answer.json["message"]


def test_a_secret_in_a_wrong_update_is_not_repeated(model: Model):
    secret = {"environment": {"TOKEN": "s3cret", "NVIDIA_X": "s3cret"}, "args": ["s3cret", 5]}
    answer = model.call("PUT", "", {"deployment_config": secret})

    refused(answer, 400, "INVALID_INPUT")
    assert b"s3cret" not in answer.raw


def test_an_update_is_on_record_without_values(model: Model):
    answer = model.call("PUT", "", {"deployment_config": {"environment": {"TOKEN": "s3cret"}}})
    action, subject, outcome, _, request_id = model.site.audit()[-1]

    assert (action, subject, outcome) == ("models.update", model.deployment, "allowed")
    assert request_id == answer.headers["X-Request-ID"]
    assert "s3cret" not in json.dumps(model.site.daemon.events(model.deployment))


def test_the_published_request_can_be_sent_again_as_an_update(site: Site):
    refusal = site.daemon.call("PUT", "/v1/custom-models/custom_nothing", DEPLOY)

    refused(refusal, 404, "MODEL_NOT_FOUND")
