"""Declarative files: what is read, what is refused, what is shown, what is done."""

import io
import json
import sys
from typing import Any

import pytest

from prsmd.cli.manifests import read_manifests
from prsmd.cli.session import UsageError
from tests.sdk.wire_server import WireServer, answers, refuses

DEPLOY = "/v1/custom-models/deploy"
MODEL = "model_name: a\ndeployment_config:\n  container_image: a:v1\n"
STEP = {"kind": "launch", "reason": "needs a replica", "revision": 2, "slot": 0, "node": "rack"}
CHANGE = {"field": "deployment_config.scaling.max_replicas", "before": 2, "after": 3}


def told(model: str = "a", **more: Any) -> dict[str, Any]:
    return {
        "dry_run": True,
        "action": "update",
        "model_id": f"custom_{model}",
        "deployment_id": "deploy_1",
        "revision": 2,
        "previous_revision": 1,
        "version": "1.0.1",
        "changes": [CHANGE],
        "image": {"reference": "a:v1", "digest": "sha256:1", "here": True},
        "plan": {"strategy": "surge", "steps": [STEP], "lowest_ready": 1, "reaches_goal": True},
        **more,
    }


def new(model: str = "a") -> dict[str, Any]:
    return told(model, action="deploy", deployment_id=None, revision=1, previous_revision=None)


@pytest.fixture
def file(tmp_path):
    def write(text: str, name: str = "models.yaml") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def is_there(server: WireServer, model: str = "a", revision: int = 1) -> None:
    known = {"model_id": f"custom_{model}", "deployment_id": "deploy_1", "revision": revision}
    server.on("GET", f"/v1/custom-models/{model}", answers(known))


# Reading.


def test_yaml_holds_what_json_can_and_nothing_is_guessed(file):
    text = MODEL + (
        "  environment: {ANSWER: yes, DAY: 2026-01-01, COUNTRY: NO, TIME: 12:30:45}\n"
        "  scaling: {min_replicas: 0, target_utilization: 0.5}\n"
        "  command: [run, '1', \"x\\ty\"]\n"
        "  security: {writable_root: true}\n"
        "  serving:\n"
        "    predict_path: null\n"
        "    health_path:\n"
    )
    [found] = read_manifests([file(text)])
    assert found.body["deployment_config"] == {
        "container_image": "a:v1",
        "environment": {"ANSWER": "yes", "DAY": "2026-01-01", "COUNTRY": "NO", "TIME": "12:30:45"},
        "scaling": {"min_replicas": 0, "target_utilization": 0.5},
        "command": ["run", "1", "x\ty"],
        "security": {"writable_root": True},
        "serving": {"predict_path": None, "health_path": None},
    }


def test_documents_are_counted_as_they_stand_and_empty_ones_passed_over(file):
    other = MODEL.replace("name: a", "name: b") + "rollout: {strategy: canary}\n"
    first, second = read_manifests([file(f"---\n{MODEL}---\n# nothing\n---\n{other}")])
    assert (first.name, first.document, first.rollout) == ("a", 1, None)
    assert (second.name, second.document) == ("b", 3)
    assert second.rollout == {"strategy": "canary"}
    assert "rollout" not in second.body


def test_an_alias_stands_for_what_it_names(file):
    text = MODEL + "  resource_requirements: &one {cpu: '1'}\n---\nmodel_name: b\nx: 1\n"
    text = text.replace("---\n", "  serving: *one\n---\n")
    first, _ = read_manifests([file(text)])
    assert first.body["deployment_config"]["serving"] == {"cpu": "1"}


def test_json_holds_one_model_or_an_array_of_them(file):
    one = {"model_name": "a", "deployment_config": {"container_image": "a:v1"}}
    assert [m.name for m in read_manifests([file(json.dumps(one), "a.json")])] == ["a"]
    two = [one, {**one, "model_name": "b"}]
    found = read_manifests([file(json.dumps(two), "b.json")])
    assert [(m.name, m.document) for m in found] == [("a", 1), ("b", 2)]


def test_a_folder_is_its_files_by_name_and_hidden_or_other_ones_are_left(file, tmp_path):
    file(MODEL.replace("name: a", "name: z"), "1.yml")
    file(MODEL.replace("name: a", "name: y"), "2.yaml")
    file(MODEL.replace("name: a", "name: x"), ".hidden.yaml")
    file("not a model", "README.md")
    assert [m.name for m in read_manifests([str(tmp_path)])] == ["z", "y"]


def test_standard_input_is_a_file_too(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(MODEL.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    [found] = read_manifests(["-"])
    assert (found.name, found.place) == ("a", "-, document 1")


DEEP = "a: " + "[" * 60 + "]" * 60
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{MODEL}---\n{MODEL}", "document 2: a stands in"),
        (f"{MODEL}---\nmodel_name: b\nmodel_name: c\n", "document 2, line 6: the field model_name"),
        (MODEL + "  x: {y: 1, y: 2}\n", "document 1, line 4: the field y stands twice"),
        (MODEL + "1: x\n", "document 1, line 4: a field's name must be text"),
        (MODEL + "x: !!python/object/apply:os.system [reboot]\n", "has no meaning here"),
        (MODEL + "x: !!binary aGk=\n", "'aGk=' as binary has no meaning here"),
        (MODEL + "x: !mine y\n", "has no meaning here"),
        (MODEL + "x: 1e999\n", "'1e999' as float has no meaning here"),
        (MODEL + "x: [\n", "line 5: is not YAML"),
        (MODEL + "x: &loop [*loop]\n", "too large or nested too deeply"),
        (MODEL + BOMB, "too large or nested too deeply"),
        (MODEL + DEEP, "too large or nested too deeply"),
        ("[" * 50_000, "nested too deeply"),
        ("- a\n- b\n", "document 1: must be a model's request, an object"),
        ("just text", "document 1: must be a model's request, an object"),
        ("deployment_config: {}\n", "document 1: model_name: is required"),
        ("model_name: 7\n", "document 1: model_name: is required, and must be text"),
        (MODEL + "rollout: canary\n", "document 1: rollout: must be an object"),
        ("# nothing\n", "there is no document in it"),
        ("a\x00b", "is not YAML"),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_place(file, text, problem):
    with pytest.raises(UsageError) as caught:
        read_manifests([file(text)])
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"model_name": "a", "model_name": "b"}', "the field model_name stands twice"),
        ('{"model_name": NaN}', "NaN is not a JSON number"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "is not JSON"),
    ],
)
def test_json_is_refused_alike(file, text, problem):
    with pytest.raises(UsageError, match=problem):
        read_manifests([file(text, "m.json")])


def test_files_that_are_missing_too_large_or_no_text_are_refused(file, tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_manifests([str(tmp_path / "missing.yaml")])
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        read_manifests([file("#" + "x" * (1 << 20))])
    (tmp_path / "latin.yaml").write_bytes(b"model_name: \xe4")
    with pytest.raises(UsageError, match="is not UTF-8"):
        read_manifests([str(tmp_path / "latin.yaml")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no document"):
        read_manifests([str(tmp_path / "empty")])


# Planning.


def test_a_plan_asks_and_does_nothing(ctl, server, file):
    is_there(server)
    server.on("PUT", "/v1/custom-models/custom_a", answers(told()))
    server.on("POST", DEPLOY, answers(new("b")))
    name = file(f"{MODEL}rollout: {{strategy: surge}}\n---\n{MODEL.replace('name: a', 'name: b')}")
    code, out, _ = ctl("plan", "-f", name)
    assert code == 0
    assert "~ custom_a: revision 1 -> revision 2 (1.0.1), surge" in out
    assert "scaling.max_replicas: 2 -> 3" in out
    assert "1. launch revision 2, slot 0 on rack: needs a replica" in out
    assert "it reaches what is asked; at least 1 serve" in out
    assert "+ custom_b: new model" in out
    assert "1 to create, 1 to update, 0 unchanged" in out
    put = next(seen for seen in server.seen if seen.method == "PUT")
    assert put.query == {"replace": "true", "dry_run": "true"}
    assert put.headers["If-Match"] == '"1"'
    assert put.body["rollout"] == {"strategy": "surge"}
    post = next(seen for seen in server.seen if seen.method == "POST")
    assert post.query == {"dry_run": "true"}


def test_the_exit_code_tells_of_changes_where_it_is_asked_to(ctl, server, file):
    is_there(server)
    same = told(changes=[], unchanged=True, revision=1)
    server.on("PUT", "/v1/custom-models/custom_a", answers(told()), answers(same))
    name = file(MODEL)
    assert ctl("plan", "-f", name, "--detailed-exitcode")[0] == 10
    code, out, _ = ctl("plan", "-f", name, "--detailed-exitcode")
    assert (code, out.splitlines()[0]) == (
        0,
        f"= custom_a: unchanged, revision 1 (1.0.1)  [{name}, document 1]",
    )


def test_a_plan_as_json_is_the_servers_own_with_its_place(ctl, server, file):
    is_there(server)
    server.on("PUT", "/v1/custom-models/custom_a", answers(told(a_newer_field=1)))
    name = file(MODEL)
    [found] = json.loads(ctl("plan", "-f", name, "-o", "json")[1])
    assert found == {"file": f"{name}, document 1", **told(a_newer_field=1)}


def test_every_wrong_document_is_named_with_its_fields(ctl, server, file):
    is_there(server)
    wrong = [{"field": "model_type", "error": "bad"}, {"field": "x", "error": "unknown field"}]
    details = {"validation_errors": wrong}
    server.on("PUT", "/v1/custom-models/custom_a", refuses(400, "INVALID_INPUT", "two", details))
    server.on("POST", DEPLOY, refuses(409, "CONFLICT", "the label is taken"))
    name = file(f"{MODEL}---\n{MODEL.replace('name: a', 'name: b')}")
    code, _, err = ctl("apply", "-f", name)
    assert code == 2
    assert f"{name}, document 1: a: two\n  model_type: bad\n  x: unknown field\n" in err
    assert f"{name}, document 2: b: the label is taken" in err
    assert "nothing was applied" in err
    assert all("dry_run" in seen.query for seen in server.seen if seen.method != "GET")


def test_two_names_of_one_model_are_one_model(ctl, server, file):
    server.on("POST", DEPLOY, answers(new("a")))
    name = file(f"{MODEL}---\n{MODEL.replace('name: a', 'name: company-a')}")
    code, _, err = ctl("apply", "-f", name)
    assert (code, len(server.seen)) == (2, 4)
    assert f"document 2: custom_a stands in {name}, document 1 already" in err


# Applying.


def test_what_is_new_is_deployed_what_is_there_changed_and_the_rest_left(ctl, server, file):
    for model in ("a", "c"):
        is_there(server, model)
    done = {"deployment_id": "deploy_1", "model_id": "custom_a", "status": "updating"}
    server.on(
        "PUT", "/v1/custom-models/custom_a", answers(told()), answers({**done, "revision": 2})
    )
    accepted = {
        "deployment_id": "deploy_2",
        "model_id": "custom_b",
        "status": "deploying",
        "message": "not placeable now",
    }
    server.on("POST", DEPLOY, answers(new("b")), answers(accepted, 202))
    same = told("c", unchanged=True, changes=[], revision=1)
    server.on("PUT", "/v1/custom-models/custom_c", answers(same))
    texts = [MODEL.replace("name: a", f"name: {model}") for model in "abc"]
    code, out, err = ctl("apply", "-f", file("---\n".join(texts)))
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["a", "updated", "2"],
        ["b", "created", "1"],
        ["c", "unchanged", "1"],
    ]
    assert "b: not placeable now" in err
    put = [seen for seen in server.seen if seen.method == "PUT" and "dry_run" not in seen.query]
    assert [(seen.query, seen.headers["If-Match"]) for seen in put] == [
        ({"replace": "true"}, '"1"')
    ]


def test_a_change_in_between_is_refused_and_the_others_are_applied(ctl, server, file):
    is_there(server)
    moved = refuses(412, "PRECONDITION_FAILED", "it is at revision 5 now")
    server.on("PUT", "/v1/custom-models/custom_a", answers(told()), moved)
    accepted = {"deployment_id": "deploy_2", "model_id": "custom_b", "status": "deploying"}
    server.on("POST", DEPLOY, answers(new("b")), answers(accepted, 202))
    name = file(f"{MODEL}---\n{MODEL.replace('name: a', 'name: b')}")
    code, out, err = ctl("apply", "-f", name, "-o", "json")
    assert code == 1
    first, second = json.loads(out)
    assert (first["result"], first["message"]) == ("failed", "it is at revision 5 now")
    assert (second["result"], second["deployment_id"]) == ("created", "deploy_2")
    assert f"{name}, document 1: a: it is at revision 5 now" in err


def test_waiting_follows_each_to_its_end(ctl, server, file):
    is_there(server)
    done = {"deployment_id": "deploy_1", "model_id": "custom_a", "status": "updating"}
    server.on(
        "PUT", "/v1/custom-models/custom_a", answers(told()), answers({**done, "revision": 2})
    )
    ended = {"number": 1, "phase": "rolled_back", "to_revision": 2, "outcome": "never got ready"}
    server.on("GET", "/v1/custom-models/a/rollout", answers({**done, "rollout": ended}))
    accepted = {"deployment_id": "deploy_2", "model_id": "custom_b", "status": "deploying"}
    server.on("POST", DEPLOY, answers(new("b")), answers(accepted, 202))
    up = {"deployment_id": "deploy_2", "status": "running", "replicas": {"ready": 1, "desired": 1}}
    server.on("GET", "/v1/custom-models/deployments/deploy_2", answers(up))
    name = file(f"{MODEL}---\n{MODEL.replace('name: a', 'name: b')}")
    code, out, err = ctl("apply", "-f", name, "--wait")
    assert code == 1
    assert "a      failed" in out
    assert "b      created" in out
    assert "never got ready" in err


def test_a_daemon_that_is_not_there_is_told_once(ctl, file, monkeypatch, tmp_path):
    monkeypatch.setenv("PRSMD_URL", f"unix://{tmp_path}/none.sock")
    code, _, err = ctl("apply", "-f", file(f"{MODEL}---\n{MODEL.replace('name: a', 'name: b')}"))
    assert code == 3
    assert err.count("prsmd does not answer") == 1


@pytest.mark.parametrize(
    ("arguments", "method", "path"),
    [
        (["deploy", "m", "--image", "m:v1", "--dry-run"], "POST", DEPLOY),
        (["update", "m", "--cpu", "2", "--dry-run"], "PUT", "/v1/custom-models/m"),
        (["scale", "m", "3", "--dry-run"], "POST", "/v1/custom-models/m/scale"),
        (["rollback", "m", "--dry-run"], "POST", "/v1/custom-models/m/rollback"),
    ],
)
def test_every_change_has_a_dry_run(ctl, server, arguments, method, path):
    hold = {"slot": 1, "revision": 2, "reason": "no room", "details": ["GPU-1: taken"]}
    course = {"strategy": "surge", "holds": [hold], "waits_for": "a person", "complete": False}
    server.on(method, path, answers(told("m", plan=course, image={"reference": "m:v1"})))
    code, out, _ = ctl(*arguments)
    assert code == 0
    assert server.seen[-1].query == {"dry_run": "true"}
    for words in (
        "image m:v1: not here; its registry was not asked or did not tell",
        "held: revision 2, slot 1: no room\n    GPU-1: taken",
        "then it waits: a person",
        "it was not worked out to its end",
        "it does not reach what is asked; for a while none serves, and requests wait",
    ):
        assert words in out
    assert json.loads(ctl(*arguments, "-o", "json")[1])["dry_run"] is True
