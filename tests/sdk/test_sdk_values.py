"""Addresses, answers, errors, events and retries as values: no I/O."""

import socket

import pytest

from prsm_sdk import calls, errors, target
from prsm_sdk.models import DeploymentStatus, Model
from prsm_sdk.retry import PATIENCE, Resumption, delay_before_retry
from prsm_sdk.sse import MAX_EVENT_BYTES, EventParser
from prsm_sdk.target import Target
from prsm_sdk.waiting import is_up, raise_if_failed

STATUS = {
    "deployment_id": "deploy_12345",
    "status": "running",
    "health_status": "healthy",
    "replicas": {"desired": 2, "ready": 2, "available": 2},
    "performance_metrics": {"requests_per_second": 15.2, "avg_latency_ms": 450},
    "resource_usage": {"cpu_percent": 65},
}


def test_the_documents_status_is_read():
    status = DeploymentStatus.decode(STATUS)
    assert status.replicas.ready == 2
    assert status.performance_metrics is not None
    assert status.performance_metrics.requests_per_second == 15.2
    assert status.performance_metrics.error_rate is None
    assert status.replica_details == ()


def test_fields_of_a_newer_server_are_kept_aside():
    status = DeploymentStatus.decode({**STATUS, "moons": 3, "replicas": {"ready": 1, "lost": 9}})
    assert status.raw["moons"] == 3
    assert status.replicas.raw["lost"] == 9


def test_an_answer_without_its_identity_is_refused():
    with pytest.raises(errors.UnexpectedAnswerError, match="incomplete"):
        Model.decode({"status": "running"})
    with pytest.raises(errors.UnexpectedAnswerError, match="list"):
        Model.decode([])


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "INVALID_INPUT", errors.InvalidInputError),
        (404, "MODEL_NOT_FOUND", errors.ModelNotFoundError),
        (429, "QUEUE_FULL", errors.QueueFullError),
        (404, "SOMETHING_NEWER", errors.NotFoundError),
        (418, "SOMETHING_NEWER", errors.PRSMError),
    ],
)
def test_each_code_has_its_class_and_new_codes_fall_back_on_the_status(status, code, kind):
    body = {"error": {"code": code, "message": "because", "details": {}, "request_id": "r"}}
    error = errors.error_from_answer(status, {}, body)
    assert type(error) is kind
    assert (error.code, error.status, str(error)) == (code, status, "because")


def test_a_key_never_shows_in_a_representation():
    assert "secret" not in repr(Target.resolve("http://h:1", "prsm_secret", environ={}))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:7443", "http://127.0.0.1:7443"),
        ("https://box.example", "https://box.example"),
        ("https://[::1]:7443/prsm/", "https://[::1]:7443/prsm"),
        ("unix:///run/x%20y.sock", "unix:///run/x y.sock"),
    ],
)
def test_addresses(url, shown):
    assert str(Target.resolve(url, environ={})) == shown


@pytest.mark.parametrize(
    "url", ["box:7443", "ftp://box", "unix://relative.sock", "http://", "http://h:99999", "/x"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(errors.ConfigurationError):
        Target.resolve(url, environ={})


def test_an_address_with_a_password_is_refused_without_repeating_it():
    with pytest.raises(errors.ConfigurationError) as caught:
        Target.resolve("http://me:hunter2@box", environ={})
    assert "hunter2" not in str(caught.value)


def test_a_key_that_would_break_its_header_is_refused_without_repeating_it():
    with pytest.raises(errors.ConfigurationError) as caught:
        Target.resolve("http://h", "prsm_x\r\nX-Evil: 1", environ={})
    assert "Evil" not in str(caught.value)


def test_an_argument_wins_over_the_environment():
    environ = {"PRSMD_URL": "http://a:1", "PRSMD_API_KEY": "prsm_e"}
    assert str(Target.resolve(environ=environ)) == "http://a:1"
    assert Target.resolve(environ=environ).api_key == "prsm_e"
    assert str(Target.resolve("http://b:2", environ=environ)) == "http://b:2"
    assert Target.resolve(api_key="prsm_a", environ=environ).api_key == "prsm_a"


def test_the_local_socket_is_preferred_where_there_is_one(tmp_path, monkeypatch):
    path = str(tmp_path / "prsmd.sock")
    monkeypatch.setattr(target, "DEFAULT_SOCKET", path)
    assert str(Target.resolve(environ={})) == target.DEFAULT_URL
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        assert Target.resolve(environ={}).socket_path == path


def test_an_endless_line_does_not_fill_memory():
    parser = EventParser()
    list(parser.feed(b"x" * MAX_EVENT_BYTES))
    with pytest.raises(errors.UnexpectedAnswerError):
        list(parser.feed(b"x"))


def test_events_are_parsed_as_the_standard_says():
    parser = EventParser()
    events = list(parser.feed(b"data: a\r\ndata:b\r\nid: 7\r\n\r\n: note\n\nevent: x\n\ndata\n\n"))
    assert [(e.event, e.data, e.id) for e in events] == [
        ("message", "a\nb", "7"),
        ("message", "", "7"),
    ]


def refusal(status: int, retry_after: float | None) -> errors.PRSMError:
    return errors.PRSMError("x", status=status, retry_after=retry_after)


def test_a_refusal_is_tried_again_only_when_the_wait_is_short_and_known():
    infer = calls.infer("m", {})
    assert delay_before_retry(infer, refusal(503, 2), 1) == 2
    assert delay_before_retry(infer, refusal(503, PATIENCE + 1), 1) is None
    assert delay_before_retry(infer, refusal(503, None), 1) is None
    assert delay_before_retry(infer, refusal(503, 2), 3) is None
    assert delay_before_retry(infer, refusal(503, 2), 1, patience=0) is None
    assert delay_before_retry(infer, refusal(504, 2), 1) is None
    assert delay_before_retry(calls.delete("m"), refusal(503, 2), 1) is None


def test_an_absent_daemon_is_not_tried_again():
    absent = errors.DaemonUnreachableError("x")
    assert delay_before_retry(calls.get_node(), absent, 1) is None


def test_a_stream_that_worked_is_given_up_after_many_failures_in_a_row():
    resumption, failure = Resumption(resumable=True), errors.ConnectionCutError("x")
    assert resumption.delay_after(failure) is None  # it never worked
    resumption.saw_event()
    delays = [resumption.delay_after(failure) for _ in range(11)]
    assert None not in delays[:10]
    assert delays[10] is None


def test_a_failed_deployment_says_why_with_its_last_lines():
    replica = {"exit": {"kind": "exited", "message": "it exited with 1", "log_tail": ["boom"]}}
    failed = {**STATUS, "status": "failed", "replica_details": [replica]}
    with pytest.raises(errors.DeploymentFailedError, match="it exited with 1") as caught:
        raise_if_failed(DeploymentStatus.decode(failed))
    assert caught.value.details == {"log_tail": ["boom"]}


@pytest.mark.parametrize(
    ("status", "up"), [("running", True), ("idle", True), ("deploying", False)]
)
def test_what_counts_as_up(status, up):
    assert is_up(DeploymentStatus.decode({**STATUS, "status": status})) is up


def test_the_documents_placeholder_is_no_key_so_that_the_environments_one_or_the_peer_counts():
    assert Target.resolve("unix:///s", "your-api-key", environ={}).api_key is None
    given = {"PRSMD_API_KEY": "prsm_real"}
    assert Target.resolve("unix:///s", "your-api-key", environ=given).api_key == "prsm_real"
