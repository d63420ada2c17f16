"""The API of one life of the daemon (tests/engine/harness.py), served on a Unix socket."""

import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.engine.harness import IMAGE, Life

DEPLOY = "/v1/custom-models/deploy"
SCALE = "/v1/custom-models/legal/scale"
LEGAL = {
    "model_name": "legal",
    "deployment_config": {
        "container_image": IMAGE,
        "resource_requirements": {"cpu": "500m", "memory": "256Mi"},
        "scaling": {"min_replicas": 1, "max_replicas": 4},
    },
}


@dataclasses.dataclass(frozen=True)
class Told:
    """One answer."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def replayed(self) -> bool:
        return self.headers.get("Idempotent-Replayed") == "true"


@dataclasses.dataclass(frozen=True)
class Door:
    """Asks as the local administrator, or with an API key."""

    session: aiohttp.ClientSession

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        once: str | None = None,
        key: str | None = None,
    ) -> Told:
        """Send one request, with this idempotency key and this API key."""
        headers = {} if once is None else {"Idempotency-Key": once}
        headers |= {} if key is None else {"X-API-Key": key}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        async with self.session.request(
            method, f"http://localhost{path}", data=data, headers=headers
        ) as answer:
            return Told(answer.status, dict(answer.headers), await answer.json())

    async def api_key(self, role: str) -> str:
        """Make an API key and return its text."""
        told = await self.ask("POST", "/v1/api-keys", {"name": role, "role": role})
        return str(told.body["key"])


@contextlib.asynccontextmanager
async def served(life: Life, folder: Path) -> AsyncIterator[Door]:
    """Serve the life's API; requests under way at the end are cut."""
    path = folder / "api.sock"
    runner = web.AppRunner(life.appliance.application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(path)).start()
        connector = aiohttp.UnixConnector(str(path), force_close=True, limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Door(session)
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)
