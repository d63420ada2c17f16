"""The data path after a revocation: the request after its answer, and what is under way.

Every request goes over a connection that was opened, and used, before.
"""

import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.api.cells import OURS
from tests.api.conftest import Site
from tests.api.document import INFER
from tests.support.daemon import Answer, UnixConnection

PATH = f"/v1/models/{OURS}/infer"
ENDLESS = {"inputs": {"text": "endless"}}
TAKE = Callable[[], Answer]


class Line:
    """One connection that is kept open, used with one key."""

    def __init__(self, site: Site, how: str, key: str) -> None:
        port = site.daemon.tcp_port
        self._connection: http.client.HTTPConnection = (
            UnixConnection(site.daemon.socket, 30)
            if how == "unix"
            else http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        )
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._connection.connect()
        self._opened = self._connection.sock

    def infer(self) -> Answer:
        """Infer over this very connection."""
        assert self._connection.sock is self._opened, "it is another connection"
        self._connection.request("POST", PATH, json.dumps(INFER), self._headers)
        answer = self._connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())

    def begin(self) -> http.client.HTTPResponse:
        """Begin an inference that streams for as long as somebody listens."""
        headers = {**self._headers, "Accept": "text/event-stream"}
        self._connection.request("POST", PATH, json.dumps(ENDLESS), headers)
        answer = self._connection.getresponse()
        assert answer.status == 200
        assert answer.read1(), "it streams"
        return answer

    def begin_change(self, path: str, body: str) -> None:
        """Send a request to make something, but for the last byte of its body."""
        self._last = body[-1:]
        self._connection.putrequest("POST", path)
        for name, value in {**self._headers, "Content-Length": len(body)}.items():
            self._connection.putheader(name, value)
        self._connection.endheaders(body[:-1].encode())

    def finish_change(self) -> Answer:
        """Send the last byte and return the answer."""
        self._connection.send(self._last.encode())
        answer = self._connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())

    def close(self) -> None:
        self._connection.close()


def allowed(answer: Answer) -> Answer:
    assert answer.status in {200, 201}, answer
    return answer


def revoke(site: Site, role: str = "invoker") -> tuple[str, TAKE]:
    made = allowed(site.daemon.call("POST", "/v1/api-keys", {"role": role})).json
    return made["key"], lambda: site.daemon.call("DELETE", f"/v1/api-keys/{made['key_id']}")


def demote(site: Site, role: str = "invoker") -> tuple[str, TAKE]:
    made = allowed(site.daemon.call("POST", "/v1/api-keys", {"role": role})).json
    path, body = f"/v1/api-keys/{made['key_id']}", {"role": "auditor"}
    return made["key"], lambda: site.daemon.call("PATCH", path, body)


def rotate(site: Site, role: str = "invoker") -> tuple[str, TAKE]:
    made = allowed(site.daemon.call("POST", "/v1/api-keys", {"role": role})).json
    path, body = f"/v1/api-keys/{made['key_id']}/rotate", {"overlap_seconds": 0}
    return made["key"], lambda: site.daemon.call("POST", path, body)


def hold_to_others(site: Site) -> tuple[str, TAKE]:
    made = allowed(site.daemon.call("POST", "/v1/api-keys", {"role": "invoker"})).json
    path, body = f"/v1/api-keys/{made['key_id']}", {"models": ["custom_other"]}
    return made["key"], lambda: site.daemon.call("PATCH", path, body)


def narrow_role(site: Site) -> tuple[str, TAKE]:
    name = "asks-models"
    body: dict[str, Any] = {"name": name, "permissions": ["models.infer", "models.read"]}
    assert site.daemon.call("POST", "/v1/roles", body).status in {201, 409}
    allowed(site.daemon.call("PATCH", f"/v1/roles/{name}", {"permissions": body["permissions"]}))
    key = allowed(site.daemon.call("POST", "/v1/api-keys", {"role": name})).json["key"]
    fewer = {"permissions": ["models.read"]}
    return key, lambda: site.daemon.call("PATCH", f"/v1/roles/{name}", fewer)


def unshare(site: Site) -> tuple[str, TAKE]:
    body = {"allowed_organizations": ["rival"], "permissions": ["infer"]}
    share = f"/v1/custom-models/{OURS}"
    made = allowed(site.daemon.call("POST", f"{share}/share", body)).json["share_id"]
    return site.other_key, lambda: site.daemon.call("DELETE", f"{share}/shares/{made}")


WAYS = {
    revoke: 401,
    rotate: 401,
    demote: 403,
    hold_to_others: 404,
    narrow_role: 403,
    unshare: 404,
}
ENDS_WHAT_IS_UNDER_WAY = [way for way in WAYS if way is not unshare]


@pytest.fixture
def line(site: Site) -> Iterator[Callable[[str, str], Line]]:
    opened: list[Line] = []

    def open_line(how: str, key: str) -> Line:
        opened.append(Line(site, how, key))
        return opened[-1]

    yield open_line
    for each in opened:
        each.close()


@pytest.mark.parametrize("how", ["tcp", "unix"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_request_after_the_answer_is_refused_on_a_connection_that_is_open(
    site: Site, line, way, how: str
):
    key, take = way(site)
    used = line(how, key)
    assert used.infer().status == 200
    assert used.infer().status == 200

    allowed(take())
    refused = used.infer()

    assert refused.status == WAYS[way], refused
    assert b"outputs" not in refused.raw


@pytest.mark.parametrize("how", ["tcp", "unix"])
@pytest.mark.parametrize("way", ENDS_WHAT_IS_UNDER_WAY, ids=lambda way: way.__name__)
def test_an_answer_that_streams_is_cut(site: Site, line, way, how: str):
    key, take = way(site)
    stream = line(how, key).begin()

    allowed(take())

    with pytest.raises(http.client.IncompleteRead):
        stream.read(20_000)  # which uncut would take half a minute, and succeed


@pytest.mark.parametrize("how", ["tcp", "unix"])
@pytest.mark.parametrize("way", [revoke, rotate, demote], ids=lambda way: way.__name__)
def test_a_change_whose_body_comes_after_the_end_of_what_allowed_it_is_not_made(
    site: Site, line, way, how: str
):
    key, take = way(site, "owner")
    slow = line(how, key)
    name = f"late-{how}-{way.__name__}"
    slow.begin_change("/v1/api-keys", json.dumps({"name": name, "role": "viewer"}))
    allowed(take())

    answer = slow.finish_change()

    assert answer.status == 401, answer
    known = site.daemon.call("GET", "/v1/api-keys").json["api_keys"]
    assert name not in [each["name"] for each in known]
