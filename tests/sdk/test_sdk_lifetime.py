"""How a client's connections end: always without a warning, with or without `async with`."""

import ast
import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from prsm_sdk import PRSMClient, errors
from tests.sdk.wire_server import WireServer, answers, refuses

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("document_program.py")
DEPLOYMENT = {"deployment_id": "deploy_1", "model_id": "custom_legal_analyzer_v2"}
USE_IN_ONE_LOOP = """
import asyncio
from prsm_sdk import PRSMClient
client = PRSMClient()
async def main():
    print((await client.node.get()).name)
"""
ENDINGS = {
    "asyncio.run": "asyncio.run(main())",
    "two loops": "asyncio.run(main()); asyncio.run(main())",
    "closed by hand": "loop = asyncio.new_event_loop()\n"
    "loop.run_until_complete(main()); loop.close()",
    "never closed": "asyncio.set_event_loop(loop := asyncio.new_event_loop())\n"
    "loop.run_until_complete(main())\nimport atexit; atexit.register(loop.close)",
    "client collected": "async def short():\n    global client\n    await main()\n"
    "    del client\n    await asyncio.sleep(0)\nasyncio.run(short())",
}


def serve_document(server: WireServer) -> None:
    deploying = {**DEPLOYMENT, "status": "deploying"}
    status = {"deployment_id": "deploy_1", "status": "running"}
    server.on("POST", "/v1/custom-models/deploy", answers(deploying, 202))
    server.on("GET", "/v1/custom-models/deployments/deploy_1", answers(status))
    answer = {"model_id": "custom_legal_analyzer_v2", "outputs": {"classification": "x"}}
    server.on("POST", "/v1/models/custom_legal_analyzer_v2/infer", answers(answer))


def test_the_documents_program_sends_the_documents_requests(server, monkeypatch, capsys):
    serve_document(server)
    monkeypatch.setenv("PRSMD_URL", server.unix_url)
    code = compile(PROGRAM.read_text(), "program", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    asyncio.run(eval(code, {}))
    assert capsys.readouterr().out == "Deployment ID: deploy_1\nStatus: running\n"
    deploy, _, infer = server.seen
    assert deploy.body == {
        "model_name": "legal-analyzer-v2",
        "deployment_config": {
            "container_image": "company/legal-analyzer:v2.1",
            "resource_requirements": {"cpu": "2", "memory": "8Gi", "gpu": "1"},
        },
    }
    assert infer.body == {"inputs": {"text": "Contract text here"}}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_program_that_closes_nothing_ends_quietly(server, ending, kind):
    server.on("GET", "/v1/node", answers({"name": "box"}))
    url = server.unix_url if kind == "unix" else server.tcp_url
    done = subprocess.run(
        [sys.executable, "-c", USE_IN_ONE_LOOP + ENDINGS[ending]],
        env={"PRSMD_URL": url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert set(done.stdout.split()) == {"box"}
    assert done.stderr == ""


def test_asyncio_run_leaves_no_warning_even_when_all_are_shown(server):
    server.on("GET", "/v1/node", answers({"name": "box"}))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", USE_IN_ONE_LOOP + "asyncio.run(main())"],
        env={"PRSMD_URL": server.unix_url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_closed_client_opens_again(server):
    server.on("GET", "/v1/node", answers({"name": "box"}))
    async with PRSMClient(base_url=server.unix_url) as client:
        await client.node.get()
    assert (await client.node.get()).name == "box"
    await client.close()
    await client.close()


async def test_waiting_ends_when_the_deployment_runs(server):
    path = "/v1/custom-models/deployments/deploy_1"
    states = [answers({"deployment_id": "deploy_1", "status": s}) for s in ("deploying", "running")]
    server.on("GET", path, *states)
    async with PRSMClient(base_url=server.unix_url) as client:
        status = await client.custom_models.wait_until_running("deploy_1")
    assert status.status == "running"
    assert server.seen[0].query == {"wait": "2"}


async def test_waiting_ends_with_the_reason_when_the_deployment_fails(server):
    failed = {"deployment_id": "deploy_1", "status": "failed", "message": "no such image"}
    server.on("GET", "/v1/custom-models/deployments/deploy_1", answers(failed))
    async with PRSMClient(base_url=server.unix_url) as client:
        with pytest.raises(errors.DeploymentFailedError, match="no such image"):
            await client.custom_models.wait_until_running("deploy_1")


async def test_waiting_ends_when_the_time_is_over(server):
    deploying = {"deployment_id": "deploy_1", "status": "deploying"}
    server.on("GET", "/v1/custom-models/deployments/deploy_1", answers(deploying))
    async with PRSMClient(base_url=server.unix_url) as client:
        with pytest.raises(errors.ClientTimeoutError, match="does not run after"):
            await client.custom_models.wait_until_running("deploy_1", timeout=0.1)


async def test_leaving_a_followed_stream_leaves_the_client_usable(server):
    path = "/v1/custom-models/deployments/deploy_1/events"
    server.on("GET", path, answers({"events": [{"sequence": 1, "reason": "Started"}]}))
    server.on("GET", "/v1/custom-models/x", refuses(404, "MODEL_NOT_FOUND", "no x"))
    async with PRSMClient(base_url=server.unix_url) as client:
        assert [e.reason for e in await client.custom_models.events("deploy_1")] == ["Started"]
        with pytest.raises(errors.ModelNotFoundError):
            await client.custom_models.get("x")


def test_every_noun_reaches_its_route(server):
    lists = {"total": 0, "limit": 20, "offset": 0, "has_more": False}
    accepted = {"deployment_id": "deploy_1", "model_id": "m"}
    server.on("GET", "/v1/custom-models/deployments", answers({"deployments": [], **lists}))
    server.on("GET", "/v1/custom-models", answers({"custom_models": [], **lists}))
    server.on("GET", "/v1/models", answers({"models": [], **lists}))
    server.on("GET", "/v1/gpus", answers({"gpus": [{"uuid": "GPU-1"}]}))
    server.on("GET", "/v1/api-keys", answers({"api_keys": [{"key_id": "k"}], "total": 1}))
    server.on("POST", "/v1/api-keys", answers({"key_id": "k", "key": "prsm_k_x"}, 201))
    server.on("DELETE", "/v1/api-keys/k", answers({"key_id": "k"}))
    server.on("POST", "/v1/custom-models/m/scale", answers({**accepted, "target_replicas": 2}, 202))
    server.on("DELETE", "/v1/custom-models/m", answers({**accepted, "status": "deleting"}, 202))

    async def use() -> None:
        async with PRSMClient(base_url=server.tcp_url) as client:
            assert not (await client.custom_models.list_deployments()).has_more
            assert len(await client.custom_models.list()) == 0
            assert len(await client.models.list()) == 0
            assert (await client.node.gpus())[0].uuid == "GPU-1"
            assert [key.key_id for key in await client.keys.list()] == ["k"]
            assert (await client.keys.create("ci", role="invoker")).key == "prsm_k_x"
            await client.keys.revoke("k")
            assert (await client.custom_models.scale("m", 2, "gradual")).target_replicas == 2
            await client.custom_models.delete("m")

    asyncio.run(use())
    assert len(server.seen) == 9
