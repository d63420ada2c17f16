"""prsmctl from its arguments to its output and exit code, against answers a test prescribes."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.sdk.wire_server import answers, cuts, hangs, refuses, streams

ROOT = Path(__file__).parents[2]
STATUS = {
    "deployment_id": "deploy_1",
    "model_id": "custom_a",
    "status": "running",
    "replicas": {"desired": 1, "ready": 1, "available": 1},
    "replica_details": [{"replica_id": "rep_1", "slot": 0, "state": "running", "ready": True}],
}
ONE = "/v1/custom-models/deployments/deploy_1"


def test_list_shows_aligned_columns(ctl, server):
    server.on(
        "GET", "/v1/custom-models/deployments", answers({"deployments": [STATUS], "total": 1})
    )
    code, out, err = ctl("list")
    header, row = out.splitlines()
    assert (code, err) == (0, "")
    assert header.index("STATUS") == row.index("running")


def test_json_is_the_servers_own_before_and_after_the_command(ctl, server):
    body = {"deployments": [], "total": 0, "a_newer_field": 1}
    server.on("GET", "/v1/custom-models/deployments", answers(body))
    assert json.loads(ctl("-o", "json", "list")[1]) == body
    assert json.loads(ctl("list", "-o", "json")[1]) == body


@pytest.mark.parametrize("name", ["deploy_1", "custom_a", "model-a"])
def test_a_deployment_is_named_by_any_of_its_three_names(ctl, server, name):
    model = {"model_id": "custom_a", "deployment_id": "deploy_1"}
    server.on("GET", f"/v1/custom-models/{name}", answers(model))
    server.on("GET", ONE, answers(STATUS))
    code, out, _ = ctl("status", name)
    assert code == 0
    assert "rep_1" in out


def test_a_model_may_be_called_like_a_deployment_id(ctl, server):
    model = {"model_id": "custom_deploy_x", "deployment_id": "deploy_1"}
    gone = refuses(404, "DEPLOYMENT_NOT_FOUND", "no such deployment")
    server.on("GET", "/v1/custom-models/deployments/deploy_x", gone)
    server.on("GET", "/v1/custom-models/deploy_x", answers(model))
    server.on("GET", ONE, answers(STATUS))
    assert ctl("status", "deploy_x")[0] == 0


def test_deploy_sends_the_documents_request_and_waits(ctl, server):
    accepted = {"deployment_id": "deploy_1", "model_id": "custom_a", "status": "deploying"}
    pulling = {"state": "pending", "message": "pulling a:v1: 3 of 9 MB"}
    busy = {**STATUS, "status": "deploying", "replica_details": [pulling]}
    server.on("POST", "/v1/custom-models/deploy", answers(accepted, 202))
    server.on("GET", ONE, answers(busy), answers(STATUS))
    flags = "deploy model-a --image a:v1 --type text-classification --cpu 2 --memory 8Gi --gpu 1"
    more = "--min 1 --max 3 --target-utilization 0.5 --env A=b=c --port 9000"
    code, out, err = ctl(*flags.split(), *more.split())
    assert code == 0
    assert "pulling a:v1: 3 of 9 MB" in err
    assert "rep_1" in out
    assert server.seen[0].body == {
        "model_name": "model-a",
        "model_type": "text-classification",
        "deployment_config": {
            "container_image": "a:v1",
            "resource_requirements": {"cpu": "2", "memory": "8Gi", "gpu": "1"},
            "scaling": {"min_replicas": 1, "max_replicas": 3, "target_utilization": 0.5},
            "serving": {"port": 9000},
            "environment": {"A": "b=c"},
        },
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.json", '{"model_name": "m", "deployment_config": {"container_image": "a:v1"}}'),
        ("m.toml", 'model_name = "m"\n[deployment_config]\ncontainer_image = "a:v1"\n'),
    ],
)
def test_deploy_reads_a_file_and_flags_go_over_it(ctl, server, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    accepted = {"deployment_id": "deploy_1", "model_id": "custom_m", "status": "deploying"}
    reasons = {"message": "not placeable now", "reasons": ["GPU-1: taken"]}
    server.on("POST", "/v1/custom-models/deploy", answers({**accepted, **reasons}, 202))
    code, out, err = ctl("deploy", "-f", str(tmp_path / name), "--image", "a:v2", "--no-wait")
    assert code == 0
    assert "deploy_1" in out
    assert "GPU-1: taken" in err
    sent = server.seen[0].body
    assert (sent["model_name"], sent["deployment_config"]) == ("m", {"container_image": "a:v2"})


def test_a_deployment_that_fails_says_why_with_its_last_lines(ctl, server):
    exited = {"kind": "exited", "message": "exited with 1", "log_tail": ["boom\x1b[2J"]}
    failed = {**STATUS, "status": "failed", "message": "it does not start"}
    server.on("GET", ONE, answers({**failed, "replica_details": [{"exit": exited}]}))
    code, _, err = ctl("status", "deploy_1", "--wait")
    assert code == 1
    assert "it does not start" in err
    assert "boom\\x1b[2J" in err


def test_a_status_shows_the_last_lines_of_a_replica_that_ended(ctl, server):
    exited = {"kind": "exited", "message": "exited with 1", "log_tail": ["boom\x1b[2J"]}
    details = [{"replica_id": "rep_1", "exit": exited}, {"replica_id": "rep_2"}]
    server.on("GET", ONE, answers({**STATUS, "status": "degraded", "replica_details": details}))
    code, out, _ = ctl("status", "deploy_1")
    assert code == 0
    assert out.endswith("\nlast lines of rep_1:\n  boom\\x1b[2J\n"), out


def test_waiting_too_long_is_its_own_exit_code(ctl, server):
    server.on("GET", ONE, answers({**STATUS, "status": "deploying"}))
    assert ctl("status", "deploy_1", "--wait", "--timeout", "0.2")[0] == 7


INFER = "/v1/models/m/infer"


@pytest.mark.parametrize(
    ("arguments", "stdin", "body"),
    [
        (["--text", "hi"], "", {"inputs": {"text": "hi"}}),
        (["--inputs", "[1, 2]"], "", {"inputs": [1, 2]}),
        (["--text", "x", "--param", "k=3", "--param", "n=no"], "", None),
        ([], '{"text": "piped"}', {"inputs": {"text": "piped"}}),
        (["-f", "-"], '{"inputs": 1, "parameters": {"p": 2}}', None),
    ],
)
def test_infer_takes_its_inputs_from_where_it_is_told(
    ctl, server, monkeypatch, arguments, stdin, body
):
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    server.on("POST", INFER, answers({"model_id": "m", "outputs": {"label": "de"}}))
    code, out, _ = ctl("infer", "m", *arguments)
    assert (code, json.loads(out)) == (0, {"label": "de"})
    expected = (
        body
        or {
            "--text": {"inputs": {"text": "x"}, "parameters": {"k": 3, "n": "no"}},
            "-f": {"inputs": 1, "parameters": {"p": 2}},
        }[arguments[0]]
    )
    assert server.seen[0].body == expected


def test_logs_are_printed_in_order_and_followed_to_their_end(ctl, server):
    lines = [{"at": f"t{n}", "text": f"line {n}", "replica_id": "rep_1"} for n in (1, 2)]
    stream = "".join(f"event: log\ndata: {json.dumps(line)}\n\n" for line in lines)
    server.on("GET", ONE, answers(STATUS))
    server.on("GET", f"{ONE}/logs", answers({"lines": lines}), streams(stream))
    expected = "t1 rep_1 line 1\nt2 rep_1 line 2\n"
    assert ctl("logs", "deploy_1", "--tail", "2", "--since", "10m")[1] == expected
    assert ctl("logs", "deploy_1", "-f")[1] == expected
    assert server.seen[1].query["tail"] == "2"
    assert float(server.seen[1].query["since"]) > 1e9


def test_events_mark_warnings(ctl, server):
    event = {"at": "t", "severity": "warning", "reason": "Exited", "message": "code 1"}
    server.on("GET", ONE, answers(STATUS))
    server.on("GET", f"{ONE}/events", answers({"events": [event]}))
    assert ctl("events", "deploy_1")[1] == "t ! Exited: code 1\n"


def test_scale_and_delete_accept_a_deployment_id(ctl, server):
    accepted = {"deployment_id": "deploy_1", "model_id": "custom_a"}
    counts = {"current_replicas": 1, "target_replicas": 3}
    server.on("POST", "/v1/custom-models/deploy_1/scale", answers({**accepted, **counts}, 202))
    server.on("DELETE", "/v1/custom-models/deploy_1", answers(accepted, 202))
    assert ctl("scale", "deploy_1", "3", "--gradual")[:2] == (
        0,
        "custom_a goes from 1 to 3 replicas\n",
    )
    assert server.seen[0].body == {"target_replicas": 3, "scaling_strategy": "gradual"}
    assert ctl("delete", "deploy_1", "--yes")[0] == 0


def test_delete_asks_nobody_when_there_is_nobody(ctl, server, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert ctl("delete", "a")[0] == 2
    assert server.seen == []


def test_a_new_key_is_alone_on_stdout(ctl, server):
    key = {"key": "prsm_k_s", "key_id": "k", "organization": "company", "role": "invoker"}
    server.on("POST", "/v1/api-keys", answers(key, 201))
    arguments = ["key", "create", "ci", "--role", "invoker", "--expires", "30d"]
    code, out, err = ctl(*arguments, "--organization", "company")
    assert (code, out) == (0, "prsm_k_s\n")
    assert "prsm_k_s" not in err
    assert server.seen[0].body["expires_in_seconds"] == 30 * 86400


def test_gpus_and_node_are_shown_for_people(ctl, server):
    gpu = {"uuid": "GPU-1", "name": "T4", "memory_total_bytes": 2**34, "reserved_by": ["rep_1"]}
    server.on("GET", "/v1/gpus", answers({"gpus": [gpu], "stale_since": "t0", "error": "hung"}))
    server.on("GET", "/v1/node", answers({"name": "box", "cpu": {"count": 4}, "x": [1]}))
    code, out, err = ctl("gpus")
    assert code == 0
    assert "16.0 GiB" in out
    assert "hung" in err
    assert ctl("node")[1].splitlines() == ["name:      box", "cpu count: 4"]


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (400, "INVALID_INPUT", 2),
        (401, "INVALID_API_KEY", 5),
        (403, "INSUFFICIENT_PERMISSIONS", 5),
        (404, "MODEL_NOT_FOUND", 4),
        (409, "CONFLICT", 1),
        (429, "QUOTA_EXCEEDED", 6),
        (502, "PROVIDER_ERROR", 1),
        (503, "RESOURCE_UNAVAILABLE", 1),
        (504, "INFERENCE_TIMEOUT", 7),
        (507, "STORAGE_FULL", 1),
    ],
)
def test_each_refusal_has_its_exit_code_and_says_why(ctl, server, status, code, exit_code):
    server.on("POST", INFER, refuses(status, code, "because of this", **{"Retry-After": "1"}))
    found, out, err = ctl("infer", "m", "--text", "x")
    assert (found, out) == (exit_code, "")
    assert "because of this" in err
    assert "req-1" in err
    assert len(server.seen) == 1  # a person is told at once


def test_what_waiting_cannot_help_is_not_to_be_tried_again(ctl, server):
    details = {"permanent": True}
    refusal = refuses(503, "RESOURCE_UNAVAILABLE", "no GPU", details, **{"Retry-After": "5"})
    server.on("POST", INFER, refusal)
    assert "again" not in ctl("infer", "m", "--text", "x")[2]


def test_each_wrong_field_is_named(ctl, server):
    wrong = [{"field": "a", "error": "is no number"}, {"field": "b", "error": "is required"}]
    server.on("POST", INFER, refuses(400, "INVALID_INPUT", "two", {"validation_errors": wrong}))
    assert "  a: is no number\n  b: is required\n" in ctl("infer", "m", "--text", "x")[2]


def test_a_daemon_that_is_not_there_is_its_own_exit_code(ctl, tmp_path):
    code, _, err = ctl("list", "--socket", str(tmp_path / "none.sock"))
    assert code == 3
    assert "systemctl status prsmd" in err


def test_a_cut_connection_does_not_claim_that_nothing_happened(ctl, server):
    server.on("POST", INFER, cuts)
    code, _, err = ctl("infer", "m", "--text", "x")
    assert code == 3
    assert "may have been carried out" in err


def test_a_hung_daemon_is_given_up(ctl, server):
    server.on("GET", "/v1/node", hangs)
    assert ctl("node", "--timeout", "0.2")[0] == 7


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frob"],
        ["list", "--nope"],
        ["scale", "a", "-1"],
        ["deploy", "a"],
        ["infer", "a", "--inputs", "{"],
        ["logs", "a", "--since", "yesterday"],
        ["key"],
        ["list", "--timeout", "0"],
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(ctl, server, arguments):
    code, out, err = ctl(*arguments)
    assert (code, out) == (2, "")
    assert err
    assert server.seen == []


def test_an_unusable_configuration_is_its_own_exit_code(ctl, tmp_path):
    (tmp_path / "empty").write_text("\n")
    assert ctl("list", "--url", "nonsense")[0] == 78
    assert ctl("list", "--api-key-file", str(tmp_path / "none"))[0] == 78
    assert ctl("list", "--api-key-file", str(tmp_path / "empty"))[0] == 78


def test_the_key_of_a_file_is_presented(ctl, server, tmp_path):
    (tmp_path / "key").write_text("prsm_k_s\n")
    ctl("node", "--api-key-file", str(tmp_path / "key"))
    assert server.seen[0].headers["Authorization"] == "Bearer prsm_k_s"


def run_apart(code: str, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, text=True, timeout=60, check=False, **options)


def test_listing_loads_nothing_slow(server):
    server.on("GET", "/v1/custom-models/deployments", answers({"deployments": []}))
    code = (
        "import sys; from prsmd.cli.main import main\n"
        f"main(['--url', {server.unix_url!r}, 'list'])\n"
        "slow = {'aiohttp', 'pydantic', 'docker', 'asyncio', 'yarl', 'prsmd.config', 'uvloop'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    assert run_apart(code, stdout=subprocess.PIPE).stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_is_no_error(server):
    body = {"deployments": [{**STATUS, "message": "x" * 500} for _ in range(500)]}
    server.on("GET", "/v1/custom-models/deployments", answers(body))
    arguments = ["--url", server.unix_url, "list"]
    code = f"import sys; from prsmd.cli.main import main; sys.exit(main({arguments!r}))"
    read, write = os.pipe()
    os.close(read)
    done = run_apart(code, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupted_command_ends_without_a_trace(server):
    asked = threading.Event()

    async def hangs_once_asked(request):
        asked.set()
        return await hangs(request)

    server.on("GET", "/v1/node", hangs_once_asked)
    command = [sys.executable, "-m", "prsmd.cli.main", "--url", server.unix_url, "node"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 130
