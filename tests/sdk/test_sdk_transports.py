"""Both transports, on both kinds of address, against a server that misbehaves on purpose."""

import asyncio
import socket
import threading
from pathlib import Path

import pytest

from prsm_sdk import calls, errors, identity_calls
from prsm_sdk.aio import AsyncTransport
from prsm_sdk.calls import Call, Follow
from prsm_sdk.sync import SyncClient
from prsm_sdk.target import Target
from tests.sdk.wire_server import (
    WireServer,
    answers,
    cuts,
    cuts_in_the_middle,
    hangs,
    refuses,
    says,
    streams,
)

NODE = {"name": "box", "version": "0.1.0"}
EVENTS = "/v1/custom-models/deployments/deploy_1/events"
LOGS = "/v1/custom-models/deployments/deploy_1/logs"


class Sync:
    """The synchronous transport under the interface of these tests."""

    def send(self, target: Target, call: Call, timeout: float = 10):
        return SyncClient(target, timeout).send(call)

    def follow(self, target: Target, follow: Follow, count: int | None = None) -> list:
        found = []
        for item in SyncClient(target).follow(follow):
            found.append(item)
            if len(found) == count:
                break
        return found


class Async:
    """The asynchronous transport under the interface of these tests."""

    def send(self, target: Target, call: Call, timeout: float = 10):
        return asyncio.run(AsyncTransport(target, timeout).send(call))

    def follow(self, target: Target, follow: Follow, count: int | None = None) -> list:
        async def collect() -> list:
            found = []
            async for item in AsyncTransport(target, 10).follow(follow):
                found.append(item)
                if len(found) == count:
                    break
            return found

        return asyncio.run(collect())


@pytest.fixture(params=[Sync, Async])
def client(request):
    return request.param()


@pytest.fixture(params=["unix", "tcp"])
def target(request, server: WireServer) -> Target:
    url = server.unix_url if request.param == "unix" else server.tcp_url
    return Target.resolve(url, "prsm_k_secret", environ={})


def test_a_call_arrives_whole_and_its_answer_comes_back(client, target, server):
    server.on("POST", "/v1/models/custom_a/infer", answers({"model_id": "custom_a", "outputs": 7}))
    result = client.send(target, calls.infer("custom_a", {"text": "ä"}, {"k": 1}))
    assert result.outputs == 7
    (seen,) = server.seen
    assert seen.body == {"inputs": {"text": "ä"}, "parameters": {"k": 1}}
    assert seen.headers["Authorization"] == "Bearer prsm_k_secret"
    assert seen.headers["Content-Type"] == "application/json"


def test_an_id_cannot_reach_another_route(client, target, server):
    with pytest.raises(errors.NotFoundError):
        client.send(target, calls.get_custom_model("../node?x=1#y"))
    with pytest.raises(errors.NotFoundError):
        client.send(target, calls.get_custom_model("a b/ü"))
    assert server.seen[0].path == "/v1/custom-models/..%2Fnode%3Fx%3D1%23y"
    assert server.seen[1].path == "/v1/custom-models/a%20b%2F%C3%BC"


def test_a_hung_server_ends_in_a_timeout(client, target, server):
    server.on("GET", "/v1/node", hangs)
    with pytest.raises(errors.ClientTimeoutError, match=r"0\.3 s"):
        client.send(target, calls.get_node(), timeout=0.3)


@pytest.mark.parametrize("cut", [cuts, cuts_in_the_middle])
def test_a_read_survives_a_cut_connection(client, target, server, cut):
    server.on("GET", "/v1/node", cut, answers(NODE))
    assert client.send(target, calls.get_node()).name == "box"


def test_a_read_that_is_always_cut_is_given_up(client, target, server):
    server.on("GET", "/v1/node", cuts)
    with pytest.raises(errors.ConnectionCutError):
        client.send(target, calls.get_node())
    assert 3 <= len(server.seen) <= 6  # aiohttp repeats each read once by itself


def test_an_inference_is_never_sent_twice_after_a_cut(client, target, server):
    server.on("POST", "/v1/models/m/infer", cuts, answers({"model_id": "m"}))
    with pytest.raises(errors.ConnectionCutError):
        client.send(target, calls.infer("m", {}))
    assert len(server.seen) == 1


def test_making_a_key_is_never_sent_twice(client, target, server):
    server.on("POST", "/v1/api-keys", cuts, answers({"key_id": "k"}))
    with pytest.raises(errors.ConnectionCutError):
        client.send(target, identity_calls.create_key("ci"))
    assert len(server.seen) == 1


def test_a_repeated_deploy_carries_the_same_idempotency_key(client, target, server):
    accepted = {"deployment_id": "deploy_1", "model_id": "custom_a", "status": "deploying"}
    server.on("POST", "/v1/custom-models/deploy", cuts, answers(accepted, 202))
    assert client.send(target, calls.deploy({"model_name": "a"})).deployment_id == "deploy_1"
    first, second = (seen.headers["Idempotency-Key"] for seen in server.seen)
    assert first == second
    assert len(first) >= 32


def test_a_refused_inference_is_tried_again_when_the_server_says_soon(client, target, server):
    busy = refuses(503, "RESOURCE_UNAVAILABLE", "starting", **{"Retry-After": "0"})
    server.on("POST", "/v1/models/m/infer", busy, answers({"model_id": "m", "outputs": 1}))
    assert client.send(target, calls.infer("m", {})).outputs == 1


def test_a_long_wait_is_the_callers_decision(client, target, server):
    limit = {"limit_type": "requests_per_day"}
    refusal = refuses(429, "QUOTA_EXCEEDED", "used up", limit, **{"Retry-After": "3600"})
    server.on("POST", "/v1/models/m/infer", refusal)
    with pytest.raises(errors.QuotaExceededError) as caught:
        client.send(target, calls.infer("m", {}))
    assert caught.value.retry_after == 3600
    assert caught.value.details == limit
    assert caught.value.request_id == "req-1"
    assert len(server.seen) == 1


def test_something_else_at_the_address_is_told_apart(client, target, server):
    server.on("GET", "/v1/node", says("<h1>nginx</h1>"))
    with pytest.raises(errors.UnexpectedAnswerError, match="not JSON"):
        client.send(target, calls.get_node())
    server.on("GET", "/v1/gpus", says("<h1>Bad gateway</h1>", status=502))
    with pytest.raises(errors.UnexpectedAnswerError, match="is it prsmd"):
        client.send(target, calls.list_gpus())


def test_redirects_are_not_followed_with_the_key(client, target, server):
    server.on("GET", "/v1/node", answers({}, 307, Location="/v1/gpus"))
    with pytest.raises(errors.UnexpectedAnswerError):
        client.send(target, calls.get_node())
    assert server.paths() == ["GET /v1/node"]


def test_nobody_at_the_address_is_told_at_once(client, tmp_path):
    absent = Target.resolve(f"unix://{tmp_path}/none.sock", environ={})
    with pytest.raises(errors.DaemonUnreachableError, match=r"there is no .*none\.sock"):
        client.send(absent, calls.get_node())
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        closed = Target.resolve(f"http://127.0.0.1:{port}", environ={})
        with pytest.raises(errors.DaemonUnreachableError, match="nothing listens"):
            client.send(closed, calls.get_node())


def test_what_does_not_speak_http_is_no_daemon(client, tmp_path):
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def greet() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(errors.UnexpectedAnswerError):
            client.send(
                Target.resolve(f"unix://{path}", environ={}), identity_calls.create_key("x")
            )
        thread.join()


def event(sequence: int) -> str:
    data = f'{{"sequence": {sequence}, "reason": "Started", "message": "m"}}'
    return f"id: {sequence}\nevent: deployment\ndata: {data}\n\n"


def test_followed_events_resume_after_a_cut_where_they_stopped(client, target, server):
    first = streams("retry: 10\n\n", event(4), ": ping\n\n", event(5), then=cuts)
    server.on("GET", EVENTS, first, streams(event(6), then=hangs))
    found = client.follow(target, calls.follow_events("deploy_1", after=3), count=3)
    assert [item.sequence for item in found] == [4, 5, 6]
    assert [seen.headers.get("Last-Event-ID") for seen in server.seen] == ["3", "5"]


def test_followed_events_end_when_the_deployment_has_gone(client, target, server):
    gone = refuses(404, "DEPLOYMENT_NOT_FOUND", "no such deployment")
    server.on("GET", EVENTS, streams("retry: 10\n\n", event(1)), gone)
    found = client.follow(target, calls.follow_events("deploy_1"))
    assert [item.sequence for item in found] == [1]


def test_following_what_never_was_fails(client, target, server):
    server.on("GET", EVENTS, refuses(404, "DEPLOYMENT_NOT_FOUND", "no such deployment"))
    with pytest.raises(errors.DeploymentNotFoundError):
        client.follow(target, calls.follow_events("deploy_1"))


def test_an_event_cut_in_two_arrives_as_one(client, target, server):
    whole = event(1)
    server.on("GET", EVENTS, streams(whole[:9], whole[9:30], whole[30:], then=hangs))
    (found,) = client.follow(target, calls.follow_events("deploy_1"), count=1)
    assert found.reason == "Started"


def test_followed_logs_end_with_the_container(client, target, server):
    line = 'event: log\ndata: {"at": "t", "stream": "stdout", "text": "up"}\n\n'
    server.on("GET", LOGS, streams(line))
    (found,) = client.follow(target, calls.follow_logs("deploy_1", tail=5))
    assert found.text == "up"
    assert server.seen[0].query == {"tail": "5", "follow": "true"}


def test_followed_logs_that_are_cut_say_so(client, target, server):
    line = 'event: log\ndata: {"text": "up"}\n\n'
    server.on("GET", LOGS, streams(line, then=cuts))
    with pytest.raises(errors.ConnectionCutError):
        client.follow(target, calls.follow_logs("deploy_1"))


def test_a_stream_that_is_no_event_stream_is_refused(client, target, server):
    server.on("GET", LOGS, says("hello", "text/plain"))
    with pytest.raises(errors.UnexpectedAnswerError, match="no event stream"):
        client.follow(target, calls.follow_logs("deploy_1"))


def test_a_socket_of_others_is_told_apart_from_an_absent_one(monkeypatch, tmp_path: Path):
    from prsm_sdk.exchange import unreachable

    target = Target.resolve(f"unix://{tmp_path}/x.sock", environ={})
    error = unreachable(target, PermissionError(13, "Permission denied"))
    assert isinstance(error, errors.PermissionDeniedError)
