"""Keys on a live daemon: what ends with them, what they are held to, and what callers are told."""

import concurrent.futures
import http.client
import json
import threading
from collections.abc import Iterator

import pytest

from tests.api.cells import OURS
from tests.api.conftest import Site, small
from tests.api.document import INFER
from tests.api.envelope import refused
from tests.support.daemon import Answer


@pytest.fixture
def made(site: Site):
    def make(**wishes: object) -> tuple[str, str]:
        answer = site.daemon.call("POST", "/v1/api-keys", {"role": "deployer", **wishes})
        assert answer.status == 201, answer
        return answer.json["key_id"], answer.json["key"]

    return make


class Following:
    """An event stream that is read in a thread until it ends."""

    def __init__(self, site: Site, path: str, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", site.daemon.tcp_port, timeout=30)
        headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
        self._connection.request("GET", path, headers=headers)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200
        self.text = b""
        self.ended = False
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            while chunk := self._answer.read1():
                self.text += chunk
        except (OSError, http.client.HTTPException):
            pass
        self.ended = True

    def end(self) -> None:
        """Return when it has ended."""
        self._thread.join(20)
        self._connection.close()
        assert self.ended, "it goes on"


@pytest.fixture
def following(site: Site) -> Iterator[object]:
    begun: list[Following] = []

    def follow(key: str) -> Following:
        deployment = site.accepted["deployment_id"]
        path = f"/v1/custom-models/deployments/{deployment}/events"
        begun.append(Following(site, path, key))
        return begun[-1]

    yield follow
    for stream in begun:
        stream.end()


@pytest.mark.parametrize("how", ["revoked", "rotated", "demoted", "expired"])
def test_a_stream_ends_with_what_it_was_opened_with(site: Site, made, following, how):
    key_id, key = made()
    stream = following(key)
    body = {
        "revoked": ("DELETE", "", None),
        "rotated": ("POST", "/rotate", {"overlap_seconds": 0}),
        "demoted": ("PATCH", "", {"role": "auditor"}),
        "expired": ("PATCH", "", {"expires_in_seconds": 0.3}),
    }[how]

    answer = site.daemon.call(body[0], f"/v1/api-keys/{key_id}{body[1]}", body[2])

    assert answer.status == 200, answer
    stream.end()
    assert b"event: error" in stream.text
    assert b"INVALID_API_KEY" in stream.text


def test_a_stream_of_a_key_that_was_rotated_goes_on_for_the_overlap(site: Site, made, following):
    key_id, key = made()
    stream = following(key)

    site.daemon.call("POST", f"/v1/api-keys/{key_id}/rotate", {"overlap_seconds": 60})
    assert not stream.ended
    site.daemon.call("DELETE", f"/v1/api-keys/{key_id}")

    stream.end()


def test_another_keys_stream_goes_on(site: Site, made, following):
    (one, _), (two, key) = made(), made()
    stream = following(key)

    site.daemon.call("DELETE", f"/v1/api-keys/{one}")
    assert not stream.ended

    site.daemon.call("DELETE", f"/v1/api-keys/{two}")
    stream.end()


@pytest.fixture
def unsettled(site: Site) -> Iterator[str]:
    """Give a deployment that waits for the GPU, which the document's model has."""
    body = small("waits-for-ever")
    body["deployment_config"]["resource_requirements"]["gpu"] = "1"
    deployment = site.daemon.deploy(body)
    yield deployment
    gone = "/v1/custom-models/waits-for-ever"
    site.daemon.call("DELETE", gone)
    site.daemon.until("it is gone", lambda: site.daemon.call("GET", gone).status == 404)


def test_a_long_poll_of_a_revoked_key_is_refused_at_once(site: Site, made, unsettled):
    key_id, key = made()
    path = f"/v1/custom-models/deployments/{unsettled}"
    assert site.daemon.call("GET", path, key=key).json["status"] == "deploying"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asking = pool.submit(site.daemon.call, "GET", f"{path}?wait=300", key=key)
        with pytest.raises(TimeoutError):
            asking.result(0.5)
        site.daemon.call("DELETE", f"/v1/api-keys/{key_id}")
        answer = asking.result(20)
    refused(answer, 401, "INVALID_API_KEY")
    assert "revoked" in answer.json["message"]


def test_a_key_finds_only_the_models_that_it_is_held_to(site: Site, made):
    _, key = made(models=["custom_elsewhere"], role="deployer")

    for path in (f"/v1/custom-models/{OURS}", f"/v1/custom-models/{OURS}/versions"):
        refused(site.daemon.call("GET", path, key=key), 404, "MODEL_NOT_FOUND")
    answer = site.daemon.call("POST", f"/v1/models/{OURS}/infer", INFER, key=key)
    refused(answer, 404, "MODEL_NOT_FOUND")
    for path, name in (("/v1/custom-models", "custom_models"), ("/v1/models", "models")):
        assert site.daemon.call("GET", path, key=key).json[name] == []
    _, held = made(models=[OURS])
    listed = site.daemon.call("GET", "/v1/models", key=held).json
    assert ([m["model_id"] for m in listed["models"]], listed["total"]) == ([OURS], 1)
    assert site.daemon.call("GET", "/v1/node", key=held).status == 403


def test_a_key_is_good_only_from_its_networks(site: Site, made):
    _, far = made(networks=["192.0.2.0/24"])
    _, near = made(networks=["127.0.0.0/8"])

    refused(site.daemon.call("GET", "/v1/auth/me", key=far), 401, "INVALID_API_KEY")
    assert site.daemon.call("GET", "/v1/auth/me", key=near).status == 200
    headers = {"X-API-Key": near}
    assert site.daemon.call("GET", "/v1/auth/me", headers=headers).status == 200


def test_exactly_as_many_requests_pass_as_a_key_may_make(site: Site, made):
    _, key = made(requests_per_day=20)

    def ask(_: int) -> Answer:
        return site.daemon.call("GET", "/v1/auth/me", key=key)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(40)))
    passed = [answer for answer in answers if answer.status == 200]
    limited = [answer for answer in answers if answer.status != 200]

    assert len(passed) == 20
    assert sorted(int(a.headers["X-RateLimit-Remaining"]) for a in passed) == list(range(20))
    for answer in limited:
        refused(answer, 429, "RATE_LIMIT_EXCEEDED")
        assert answer.headers["X-RateLimit-Remaining"] == "0"
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json["error"]["details"]["limit_type"] == "requests_per_day"


def test_who_one_is_is_told_whole(site: Site, made):
    key_id, key = made(models=[OURS], requests_per_minute=1000)
    bound = {"kind": "key", "subject": key_id, "bindings": [{"role": "owner", "model": OURS}]}
    added = site.daemon.call("POST", "/v1/members", bound)
    assert added.status == 201, added

    me = site.daemon.call("GET", "/v1/auth/me", key=key).json

    assert me["principal"] == f"key:{key_id}"
    assert me["only_models"] == [OURS]
    assert me["key"]["key_id"] == key_id
    assert me["key"]["last_used_at"]
    assert "digest" not in json.dumps(me)
    [model] = me["on_models"]
    assert model["model_id"] == OURS
    assert "models.delete" in model["permissions"]
    assert "keys.manage" not in model["permissions"]
    site.daemon.call("DELETE", f"/v1/members/{added.json['member_id']}")
    assert site.daemon.call("GET", "/v1/auth/me", key=key).json["on_models"] == []


def test_a_repeated_rotation_is_told_that_the_secret_was_given_before(site: Site, made):
    key_id, _ = made()
    once = {"Idempotency-Key": "rotate-once"}
    path = f"/v1/api-keys/{key_id}/rotate"

    first = site.daemon.call("POST", path, {}, headers=once)
    again = site.daemon.call("POST", path, {}, headers=once)

    assert first.json["key"].startswith(f"prsm_{key_id}_")
    assert "key" not in again.json
    assert "rotate the key again" in again.json["message"]
    assert site.daemon.call("GET", "/v1/auth/me", key=first.json["key"]).status == 200
