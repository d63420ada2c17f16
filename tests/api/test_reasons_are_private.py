"""Why a model waits, wherever that is told: nothing in it names what is somebody else's."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from prsmd.domain.quantity import GIB
from tests.api.served import DEPLOY, LEGAL, Door, served
from tests.engine.conftest import life, world
from tests.engine.harness import Life, World

__all__ = ["life", "world"]

CONFIG = LEGAL["deployment_config"]
WHOLE = {**CONFIG["resource_requirements"], "gpu": "1"}
NEEDS_GPU = {"deployment_config": {**CONFIG, "resource_requirements": WHOLE}}


@pytest.fixture
async def door(life: Life, tmp_path: Path) -> AsyncIterator[Door]:
    async with served(life, tmp_path) as door:
        yield door


async def key_of(door: Door, organization: str) -> str:
    await door.ask("POST", "/v1/organizations", {"organization_id": organization})
    body = {"name": "k", "role": "owner", "organization": organization}
    return str((await door.ask("POST", "/v1/api-keys", body)).body["key"])


async def everything_told(life: Life, door: Door, name: str, key: str) -> dict[str, Any]:
    """Deploy a model that finds no GPU; return all that its owner is told of why."""
    wanted = {"model_name": name, **NEEDS_GPU}
    told = {"dry run": await door.ask("POST", f"{DEPLOY}?dry_run=true", wanted, key=key)}
    told["deploy"] = await door.ask("POST", DEPLOY, wanted, key=key)
    await life.tick()
    one, model = f"/v1/custom-models/deployments/{name}", f"/v1/custom-models/{name}"
    up, question = {"target_replicas": 2}, {"inputs": {}}
    told["status"] = await door.ask("GET", one, key=key)
    told["list"] = await door.ask("GET", "/v1/custom-models/deployments", key=key)
    told["events"] = await door.ask("GET", f"{one}/events", key=key)
    told["scale"] = await door.ask("POST", f"{model}/scale", up, key=key)
    told["scale dry"] = await door.ask("POST", f"{model}/scale?dry_run=true", up, key=key)
    told["update dry"] = await door.ask("PUT", f"{model}?dry_run=true", NEEDS_GPU, key=key)
    told["infer"] = await door.ask("POST", f"/v1/models/{name}/infer", question, key=key)
    told["gpus"] = await door.ask("GET", "/v1/gpus", key=key)
    told["node"] = await door.ask("GET", "/v1/node", key=key)
    told["audit"] = await door.ask("GET", "/v1/audit", key=key)
    return {where: answer.body for where, answer in told.items()}


async def test_processes_of_the_host_are_named_to_administrators_only(
    life: Life, world: World, door: Door
) -> None:
    world.gpus.add("GPU-aaaa")
    world.gpus.run("GPU-aaaa", 4711, 8 * GIB, name="payroll-training")
    key = await key_of(door, "acme")
    told = await everything_told(life, door, "waits", key)

    assert "processes that are not prsmd's: pid 4711" in json.dumps(told["status"])
    assert [where for where, body in told.items() if "payroll" in json.dumps(body)] == []
    [gpu] = (await door.ask("GET", "/v1/gpus")).body["gpus"]
    assert gpu["processes"] == [{"pid": 4711, "name": "payroll-training", "memory_bytes": 8 * GIB}]


async def test_models_of_other_organizations_are_named_nowhere(
    life: Life, world: World, door: Door
) -> None:
    world.gpus.add("GPU-aaaa")
    rival, acme = await key_of(door, "rival"), await key_of(door, "acme")
    theirs = await door.ask("POST", DEPLOY, {"model_name": "takeover", **NEEDS_GPU}, key=rival)
    await life.settle()
    [replica] = await life.active()
    told = await everything_told(life, door, "waits", acme)

    assert "reserved whole by another organization" in json.dumps(told["status"])
    words = ["takeover", "rival", replica.id, theirs.body["deployment_id"], replica.container_id]
    named = [(w, word) for w, body in told.items() for word in words if word in json.dumps(body)]
    assert named == []
