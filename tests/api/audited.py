"""For each operation that changes something: how the world gets ready for it, and a request.

Who adds such an operation adds it here; `test_every_change_is_audited` fails until then.
"""

import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tests.api.served import DEPLOY, LEGAL, Door
from tests.engine.harness import Life
from tests.support import archives

MODEL = "/v1/custom-models/legal"
KEYS, ROLES, MEMBERS = "/v1/api-keys", "/v1/roles", "/v1/members"
ORGANIZATIONS, LOGINS, SECRETS = "/v1/organizations", "/v1/registries", "/v1/secrets"
CANARY = {"rollout": {"strategy": "canary", "promotion": "manual", "canary": {"steps": [10]}}}
CHANGED = {"deployment_config": {"environment": {"A": "1"}}}
LOGIN = {"username": "u", "password": "correct horse battery staple"}
SHARE = {"allowed_organizations": ["rival"], "permissions": ["read"]}


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request that is allowed when an administrator sends it."""

    path: str
    body: Any = None


Prepare = Callable[[Life, Door], Awaitable[Asked]]


async def do(door: Door, method: str, path: str, body: Any = None) -> Any:
    told = await door.ask(method, path, body)
    assert told.status < 300, told
    return told.body


def at_once(path: str, body: Any = None) -> Prepare:
    async def prepare(_life: Life, _door: Door) -> Asked:
        return Asked(path, body)

    return prepare


def after(*steps: tuple[str, str, Any], then: Asked) -> Prepare:
    """The request after these: method, path, body."""

    async def prepare(_life: Life, door: Door) -> Asked:
        for method, path, body in steps:
            await do(door, method, path, body)
        return then

    return prepare


DEPLOYED = ("POST", DEPLOY, LEGAL)


def in_rollout(path: str, body: Any = None, *, paused: bool = False) -> Prepare:
    async def prepare(life: Life, door: Door) -> Asked:
        await do(door, *DEPLOYED)
        await life.settle()
        await do(door, "PUT", MODEL, {**CHANGED, **CANARY})

        async def on_trial() -> bool:
            shown = await do(door, "GET", f"{MODEL}/rollout")
            return bool(shown["rollout"]["phase"] == "trying")

        await life.until(on_trial)
        if paused:
            await do(door, "POST", f"{MODEL}/rollout/pause", {})
        return Asked(MODEL + path, body)

    return prepare


def of_key(suffix: str, body: Any = None) -> Prepare:
    async def prepare(_life: Life, door: Door) -> Asked:
        made = await do(door, "POST", KEYS, {"name": "k", "role": "viewer"})
        return Asked(f"{KEYS}/{made['key_id']}{suffix}", body)

    return prepare


def of_member(body: Any = None) -> Prepare:
    async def prepare(_life: Life, door: Door) -> Asked:
        made = await do(door, "POST", MEMBERS, MEMBER)
        return Asked(f"{MEMBERS}/{made['member_id']}", body)

    return prepare


def of_share(body: Any = None) -> Prepare:
    async def prepare(_life: Life, door: Door) -> Asked:
        await do(door, *RIVAL)
        await do(door, *DEPLOYED)
        made = await do(door, "POST", f"{MODEL}/share", SHARE)
        return Asked(f"{MODEL}/shares/{made['share_id']}", body)

    return prepare


async def with_archive(_life: Life, _door: Door) -> Asked:
    return Asked("/v1/images", archives.tar(archives.saved()))


RIVAL = ("POST", ORGANIZATIONS, {"organization_id": "rival"})
ROLE = {"name": "looker", "permissions": ["models.read"]}
MEMBER = {"kind": "uid", "subject": "4242", "bindings": [{"role": "viewer"}]}
SECRET = {"name": "token", "value": "hush"}
HAS_ROLE, HAS_SECRET = ("POST", ROLES, ROLE), ("POST", SECRETS, SECRET)

SAMPLES: dict[str, Prepare] = {
    "POST /v1/custom-models/deploy": at_once(DEPLOY, LEGAL),
    "POST /v1/custom-models/{model_id}/scale": after(
        DEPLOYED, then=Asked(f"{MODEL}/scale", {"target_replicas": 2})
    ),
    "DELETE /v1/custom-models/{model_id}": after(DEPLOYED, then=Asked(MODEL)),
    "PUT /v1/custom-models/{model_id}": after(DEPLOYED, then=Asked(MODEL, CHANGED)),
    "POST /v1/custom-models/{model_id}/rollback": in_rollout("/rollback", {}),
    "POST /v1/custom-models/{model_id}/rollout/pause": in_rollout("/rollout/pause", {}),
    "POST /v1/custom-models/{model_id}/rollout/resume": in_rollout(
        "/rollout/resume", {}, paused=True
    ),
    "POST /v1/custom-models/{model_id}/rollout/promote": in_rollout("/rollout/promote", {}),
    "POST /v1/custom-models/{model_id}/rollout/abort": in_rollout("/rollout/abort", {}),
    "PUT /v1/custom-models/{model_id}/traffic": in_rollout(
        "/traffic", {"weights": {"1": 50, "2": 50}}
    ),
    "POST /v1/api-keys": at_once(KEYS, {"name": "k", "role": "viewer"}),
    "PATCH /v1/api-keys/{key_id}": of_key("", {"name": "other"}),
    "POST /v1/api-keys/{key_id}/rotate": of_key("/rotate", {}),
    "DELETE /v1/api-keys/{key_id}": of_key(""),
    "POST /v1/organizations": at_once(ORGANIZATIONS, {"organization_id": "rival"}),
    "PATCH /v1/organizations/{organization_id}": after(
        RIVAL, then=Asked(f"{ORGANIZATIONS}/rival", {"display_name": "Rival"})
    ),
    "PATCH /v1/organizations/{organization_id}/quota": after(
        RIVAL, then=Asked(f"{ORGANIZATIONS}/rival/quota", {"hard": {"keys": 9}})
    ),
    "DELETE /v1/organizations/{organization_id}": after(
        RIVAL, then=Asked(f"{ORGANIZATIONS}/rival")
    ),
    "POST /v1/roles": at_once(ROLES, ROLE),
    "PATCH /v1/roles/{name}": after(
        HAS_ROLE, then=Asked(f"{ROLES}/looker", {"description": "looks"})
    ),
    "DELETE /v1/roles/{name}": after(HAS_ROLE, then=Asked(f"{ROLES}/looker")),
    "POST /v1/members": at_once(MEMBERS, MEMBER),
    "PATCH /v1/members/{member_id}": of_member({"name": "Somebody"}),
    "DELETE /v1/members/{member_id}": of_member(),
    "POST /v1/images": with_archive,
    "POST /v1/images/prune": at_once("/v1/images/prune", {}),
    "POST /v1/registries": at_once(LOGINS, {"server": "registry.local", **LOGIN}),
    "PUT /v1/registries/{server}": at_once(f"{LOGINS}/registry.local", LOGIN),
    "DELETE /v1/registries/{server}": after(
        ("PUT", f"{LOGINS}/registry.local", LOGIN), then=Asked(f"{LOGINS}/registry.local")
    ),
    "POST /v1/secrets": at_once(SECRETS, SECRET),
    "PUT /v1/secrets/{name}": after(HAS_SECRET, then=Asked(f"{SECRETS}/token", {"value": "new"})),
    "DELETE /v1/secrets/{name}": after(HAS_SECRET, then=Asked(f"{SECRETS}/token")),
    "POST /v1/secrets/rotate-key": at_once(f"{SECRETS}/rotate-key", {}),
    "POST /v1/custom-models/{model_id}/share": after(
        RIVAL, DEPLOYED, then=Asked(f"{MODEL}/share", SHARE)
    ),
    "PATCH /v1/custom-models/{model_id}/shares/{share_id}": of_share({"permissions": ["infer"]}),
    "DELETE /v1/custom-models/{model_id}/shares/{share_id}": of_share(),
}


async def send(door: Door, method: str, asked: Asked, key: str | None = None) -> tuple[int, Any]:
    """Send the request, also one whose body is an archive; return status and body."""
    if not isinstance(asked.body, bytes):
        told = await door.ask(method, asked.path, asked.body, key=key)
        return told.status, told.body
    headers = {"Content-Type": "application/x-tar"} | ({} if key is None else {"X-API-Key": key})
    url = f"http://localhost{asked.path}"
    async with door.session.post(url, data=asked.body, headers=headers) as answer:
        return answer.status, json.loads(await answer.read())
