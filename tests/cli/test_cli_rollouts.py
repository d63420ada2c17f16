"""prsmctl update, rollback, versions, diff, rollout and traffic, against prescribed answers."""

import json
from typing import Any

import pytest

from tests.sdk.wire_server import answers, refuses

ONE = "/v1/custom-models/m"
ROLLOUT = {
    "number": 2,
    "strategy": "canary",
    "phase": "trying",
    "active": True,
    "step": 1,
    "steps": [10, 50],
    "weight": 10,
    "from_revision": 2,
    "from_version": "2.0.0",
    "to_revision": 3,
    "to_version": "2.0.1",
    "started_at": "2026-01-01T00:00:01.000Z",
    "started_by": "key:x",
    "waiting_for": "it bakes",
    "options": {},
}
TRAFFIC = [
    {"revision": 3, "version": "2.0.1", "weight": 10},
    {"revision": 2, "version": "2.0.0", "weight": 90},
]
STATE = {
    "deployment_id": "deploy_1",
    "model_id": "m",
    "revision": 3,
    "rollout": ROLLOUT,
    "traffic": TRAFFIC,
}
CHANGES = [
    {"field": "deployment_config.container_image", "before": "m:v1", "after": "m:v2\x1b[2J"},
    {"field": "deployment_config.scaling.max_replicas", "before": 2, "after": None},
]
UPDATED = {
    "deployment_id": "deploy_1",
    "model_id": "m",
    "status": "updating",
    "revision": 3,
    "previous_revision": 2,
    "version": "2.0.1",
    "in_place": False,
    "changes": CHANGES,
    "rollout": ROLLOUT,
    "message": "its version is 2.0.1, after 2.0.0",
    "reasons": ["node: full"],
}


def ended(phase: str, outcome: str, *evidence: str) -> dict[str, Any]:
    over = {"phase": phase, "active": False, "outcome": outcome, "evidence": list(evidence)}
    return {**STATE, "rollout": {**ROLLOUT, **over}}


def test_update_sends_only_what_is_given(ctl, server):
    server.on("PUT", ONE, answers(UPDATED, 202))
    flags = "--image m:v2 --cpu 2 --max 4 --env A=b --unset-env GONE --model-version 3.0.0"
    how = "--strategy canary --canary-steps 10,50% --header X-Try=new --sticky --bake 2m"
    gate = "--max-error-rate 0.01 --min-requests 50 --promotion manual --max-surge 2"
    code, out, err = ctl("update", "m", *flags.split(), *how.split(), *gate.split())

    assert code == 0
    assert server.seen[0].body == {
        "deployment_config": {
            "container_image": "m:v2",
            "resource_requirements": {"cpu": "2"},
            "scaling": {"max_replicas": 4},
            "environment": {"A": "b", "GONE": None},
        },
        "model_metadata": {"version": "3.0.0"},
        "rollout": {
            "strategy": "canary",
            "max_surge": 2,
            "canary": {
                "steps": [10, 50],
                "header": {"name": "X-Try", "value": "new"},
                "sticky": True,
            },
            "bake_seconds": 120.0,
            "gate": {"max_error_rate": 0.01, "min_requests": 50},
            "promotion": "manual",
        },
    }
    assert "If-Match" not in server.seen[0].headers
    assert len(server.seen[0].headers["Idempotency-Key"]) >= 32
    assert out.splitlines() == [
        "m goes to revision 3 (2.0.1), from 2",
        "  container_image: m:v1 -> m:v2\\x1b[2J",
        "  scaling.max_replicas: 2 -> -",
    ]
    assert err.splitlines() == ["its version is 2.0.1, after 2.0.0", "  node: full"]


def test_update_reads_a_file_that_may_name_the_model_and_flags_go_over_it(ctl, server, tmp_path):
    file = tmp_path / "m.toml"
    file.write_text('model_name = "m"\n[deployment_config]\ncontainer_image = "m:v1"\n')
    server.on("PUT", ONE, answers({**UPDATED, "status": "unchanged"}))
    code, out, _ = ctl("update", "-f", str(file), "--image", "m:v2", "--if-match", "2")

    assert (code, out.splitlines()[0]) == (0, "m is at revision 3 (2.0.1) already")
    assert server.seen[0].body == {
        "model_name": "m",
        "deployment_config": {"container_image": "m:v2"},
    }
    assert server.seen[0].headers["If-Match"] == '"2"'


def test_update_waits_with_progress_until_it_is_rolled_out(ctl, server):
    server.on("PUT", ONE, answers(UPDATED, 202))
    server.on("GET", f"{ONE}/rollout", answers(STATE), answers(ended("completed", "done")))
    code, out, err = ctl("update", "m", "--image", "m:v2", "-w")

    assert code == 0
    assert "revision 3 (2.0.1), canary, trying, step 1 of 2, 10 %: it bakes" in err
    assert "outcome:" in out


def test_waiting_for_what_is_rolled_back_says_why_and_fails(ctl, server):
    server.on("PUT", ONE, answers(UPDATED, 202))
    back = ended("rolled_back", "its error rate is 9 %", "on trial: 100 requests\x1b[2J")
    server.on("GET", f"{ONE}/rollout", answers(back))
    code, out, err = ctl("update", "m", "--image", "m:v2", "--wait")

    assert (code, out) == (1, "")
    assert "m to revision 3 rolled back: its error rate is 9 %" in err
    assert "because:\n  on trial: 100 requests\\x1b[2J" in err


def test_waiting_too_long_is_its_own_exit_code(ctl, server):
    server.on("PUT", ONE, answers(UPDATED, 202))
    server.on("GET", f"{ONE}/rollout", answers(STATE))
    assert ctl("update", "m", "--image", "m:v2", "-w", "--timeout", "0.2")[0] == 7
    server.on("GET", "/v1/custom-models/deployments/deploy_1/events", answers({"events": []}))
    assert ctl("rollout", "status", "m", "-f", "--timeout", "0.2")[0] == 7


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ([], {}),
        (["2"], {"revision": 2}),
        (["2.0.0"], {"version": "2.0.0"}),
        (["2", "--strategy", "recreate"], {"revision": 2, "rollout": {"strategy": "recreate"}}),
    ],
)
def test_rollback_goes_to_a_revision_a_version_or_the_last_good_one(ctl, server, target, body):
    server.on("POST", f"{ONE}/rollback", answers({**UPDATED, "status": "updated"}))
    code, out, _ = ctl("rollback", "m", *target)

    assert (code, server.seen[0].body) == (0, body)
    assert "is at revision 3 (2.0.1) now; what runs goes on" in out


def test_versions_are_listed_with_what_became_of_them(ctl, server):
    version = {
        "revision": 3,
        "version": "2.0.1",
        "state": "rolled_back",
        "reason": "it crashed",
        "why": "updated",
        "created_by": "key:x",
        "container_image": "m:v2",
        "changes": CHANGES,
    }
    body = {"versions": [version], "total": 1}
    server.on("GET", f"{ONE}/versions", answers(body))
    code, out, _ = ctl("versions", "m", "--limit", "5", "--offset", "1")

    header, row = out.splitlines()
    assert (code, server.seen[0].query) == (0, {"limit": "5", "offset": "1"})
    for column, cell in (("STATE", "rolled_back"), ("BY", "key:x"), ("REASON", "it crashed")):
        assert header.index(column) == row.index(cell)
    assert "container_image, scaling.max_replicas" in row
    assert json.loads(ctl("versions", "m", "-o", "json")[1]) == body


@pytest.mark.parametrize(
    ("arguments", "query"),
    [([], {}), (["1"], {"from": "1"}), (["1", "3"], {"from": "1", "to": "3"})],
)
def test_a_diff_shows_each_field_that_differs(ctl, server, arguments, query):
    found = {
        "model_id": "m",
        "from_revision": 1,
        "from_version": "1.0.0",
        "to_revision": 3,
        "to_version": "2.0.1",
        "changes": CHANGES,
    }
    server.on("GET", f"{ONE}/diff", answers(found))
    code, out, _ = ctl("diff", "m", *arguments)

    assert (code, server.seen[0].query) == (0, query)
    assert out.splitlines() == [
        "--- revision 1 (1.0.0)",
        "+++ revision 3 (2.0.1)",
        "container_image: m:v1 -> m:v2\\x1b[2J",
        "scaling.max_replicas: 2 -> -",
    ]


def test_a_rollout_is_shown_with_what_it_waits_for_and_its_traffic(ctl, server):
    server.on("GET", f"{ONE}/rollout", answers(STATE))
    code, out, _ = ctl("rollout", "status", "m")

    assert code == 0
    lines = [line.split(None, 2) for line in out.splitlines()]
    assert ["waiting", "for:", "it bakes"] in lines
    assert ["step:", "1", "of 2"] in lines
    assert ["3", "2.0.1", "10 %"] in lines
    assert json.loads(ctl("rollout", "status", "m", "-o", "json")[1]) == STATE


EVENTS = "/v1/custom-models/deployments/deploy_1/events"


@pytest.mark.parametrize(
    ("phase", "exit_code"),
    [("completed", 0), ("rolled_back", 1), ("aborted", 1), ("superseded", 1)],
)
def test_following_tells_each_event_once_and_ends_as_the_rollout_did(ctl, server, phase, exit_code):
    def event(number: int, at: str) -> dict[str, Any]:
        return {"sequence": number, "at": at, "reason": f"Step{number}", "message": "x"}

    before, begun = "2026-01-01T00:00:00.999Z", "2026-01-01T00:00:01.000Z"
    old, first, second = event(1, before), event(2, begun), event(3, "2026-01-01T00:00:09.000Z")
    server.on("GET", f"{ONE}/rollout", answers(STATE), answers(ended(phase, "so it ended", "why")))
    server.on(
        "GET", EVENTS, answers({"events": [old, first]}), answers({"events": [first, second]})
    )
    code, out, err = ctl("rollout", "status", "m", "-f")

    assert code == exit_code
    assert [line.split()[1] for line in out.splitlines()] == ["Step2:", "Step3:"]
    assert f"{phase.replace('_', ' ')}: so it ended\n  why\n" in err


def test_following_as_json_ends_with_the_rollout(ctl, server):
    over = ended("completed", "done")
    server.on("GET", f"{ONE}/rollout", answers(over))
    server.on("GET", EVENTS, answers({"events": []}))
    server.on("GET", "/v1/api-keys", answers({"api_keys": []}))
    assert json.loads(ctl("key", "list", "-o", "json")[1]) == {"api_keys": []}
    assert json.loads(ctl("rollout", "status", "m", "-f", "-o", "json")[1]) == over


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "abort"])
def test_a_rollout_is_steered_by_its_verbs(ctl, server, verb):
    server.on("POST", f"{ONE}/rollout/{verb}", answers(STATE), answers({**STATE, "changed": False}))
    code, out, _ = ctl("rollout", verb, "m", "--if-match", "3")

    assert (code, server.seen[0].headers["If-Match"]) == (0, '"3"')
    assert out.startswith("m: revision 3 (2.0.1), canary, trying")
    assert ctl("rollout", verb, "m")[1].startswith("m: already revision 3")


def test_traffic_is_divided_or_shown(ctl, server):
    server.on("PUT", f"{ONE}/traffic", answers(STATE))
    by_load = [{**TRAFFIC[0], "weight": None}]
    server.on("GET", ONE, answers({"model_id": "m", "traffic": by_load}))
    code, out, _ = ctl("traffic", "m", "3=90", "2=10%")

    assert (code, server.seen[0].body) == (0, {"weights": {"3": 90, "2": 10}})
    assert out.splitlines()[1].split() == ["3", "2.0.1", "10", "%"]
    assert "by load" in ctl("traffic", "m")[1]


def test_scale_and_delete_may_be_conditional(ctl, server):
    changed = {"current_revision": 5}
    for method, path in (("POST", f"{ONE}/scale"), ("DELETE", ONE)):
        server.on(method, path, refuses(412, "PRECONDITION_FAILED", "it moved", changed))
    for command in (["scale", "m", "2"], ["delete", "m", "--yes"]):
        code, _, err = ctl(*command, "--if-match", "4")
        assert (code, server.seen[-1].headers["If-Match"]) == (1, '"4"')
        assert "it moved" in err
        assert "prsmctl diff" in err


def test_a_conflict_fails_with_the_servers_words(ctl, server):
    server.on("POST", f"{ONE}/rollout/pause", refuses(409, "CONFLICT", "nothing is under way"))
    code, out, err = ctl("rollout", "pause", "m")

    assert (code, out) == (1, "")
    assert "nothing is under way" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["update"],
        ["update", "m"],
        ["update", "m", "--strategy", "canary"],
        ["update", "m", "--canary-steps", "ten"],
        ["update", "m", "--header", "X-Try"],
        ["update", "m", "-f", "/nonexistent.json"],
        ["rollback"],
        ["rollback", "m", "--if-match", "now"],
        ["diff", "m", "one"],
        ["versions"],
        ["rollout"],
        ["rollout", "undo", "m"],
        ["rollout", "status"],
        ["traffic", "m", "3"],
        ["traffic", "m", "new=100"],
        ["traffic", "m", "3=50", "3=50"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_before_anything_is_sent(ctl, server, arguments):
    code, out, err = ctl(*arguments)

    assert (code, out) == (2, "")
    assert err
    assert server.seen == []


def test_status_shows_the_rollout(ctl, server):
    status = {"deployment_id": "deploy_1", "status": "updating", "rollout": ROLLOUT}
    server.on("GET", "/v1/custom-models/deployments/deploy_1", answers(status))
    assert "canary, trying, step 1 of 2, 10 %: it bakes" in ctl("status", "deploy_1")[1]
