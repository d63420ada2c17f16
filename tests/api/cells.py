"""Every operation as a request that could be meant: what it is asked of, and with which body."""

import dataclasses
import itertools
import re
from collections.abc import Mapping
from typing import Any

from prsmd.api.app import OPERATIONS
from prsmd.api.operations import Operation
from tests.api.conftest import Site, small
from tests.api.document import DEPLOY, INFER, SCALE
from tests.support.daemon import Answer

OURS = "custom_legal_analyzer_v2"
UPDATE = {"deployment_config": {"scaling": {"max_replicas": 3}}}
NEVER = {
    "model_id": "custom_nothing",
    "deployment_id": "deploy_0123456789ab",
    "key_id": "0123456789",
    "organization_id": "nowhere",
    "member_id": "member_0123456789ab",
    "share_id": "share_0123456789ab",
    "name": "nothing",
    "server": "nowhere.example.com",
}
STALE = {"If-Match": '"999"'}  # who may is told 412, and nothing is changed
_numbers = itertools.count(2_000_000)


def parameters(operation: Operation) -> list[str]:
    """Return the names of a path's parameters."""
    return re.findall(r"{(\w+)}", operation.path)


def name_of(operation: Operation) -> str:
    """Return how a test is named that is about this operation."""
    return f"{operation.method} {operation.path}"


def body_of(operation: Operation) -> Any:
    """Return a body that the operation takes; each makes something new where it makes one."""
    unique = next(_numbers)
    bodies: Mapping[str, Any] = {
        "DeployBody": DEPLOY,
        "ScaleBody": SCALE,
        "UpdateBody": UPDATE,
        "RollbackBody": {"revision": 1},
        "EmptyBody": {},
        "TrafficBody": {"weights": {"1": 100}},
        "InferBody": INFER,
        "KeyBody": {"name": "cell", "role": "invoker"},
        "KeyChangeBody": {"name": "changed"},
        "RotateBody": {},
        "OrganizationBody": {"organization_id": f"org-{unique}"},
        "OrganizationChangeBody": {"display_name": "Changed"},
        "RoleBody": {"name": f"role-{unique}", "permissions": ["models.read"]},
        "RoleChangeBody": {"description": "changed"},
        "MemberBody": {"kind": "uid", "subject": str(unique), "bindings": []},
        "MemberChangeBody": {"name": "changed"},
        "PruneBody": {"dry_run": True},
        "RegistryBody": {"server": f"r{unique}.example.com", "username": "u", "password": "p"},
        "LoginBody": {"username": "u", "password": "p"},
        "SecretBody": {"name": f"secret-{unique}", "value": "v"},
        "SecretValueBody": {"value": "w"},
        "ShareBody": {
            "share_type": "organization",
            "allowed_organizations": ["third"],
            "permissions": ["read"],
        },
        "ShareChangeBody": {"permissions": ["read"]},
        "QuotaChangeBody": {"hard": {"roles": 60}},
    }
    if operation.body is None:
        return None
    assert operation.body.__name__ in bodies, "name a body for the operation here"
    return bodies[operation.body.__name__]


@dataclasses.dataclass(frozen=True)
class Things:
    """What an organization has, by the name of the path parameter that names it."""

    of: Mapping[str, str]

    def value(self, operation: Operation, parameter: str) -> str:
        """Return what stands for the parameter in this operation's path."""
        if parameter == "name":
            return self.of["role" if "/roles/" in operation.path else "secret"]
        return self.of.get(parameter, NEVER[parameter])

    def path(self, operation: Operation) -> str:
        """Return the operation's path on these things."""
        values = {each: self.value(operation, each) for each in parameters(operation)}
        return operation.path.format(**values)


def never_path(operation: Operation) -> str:
    """Return the operation's path on what never was."""
    return operation.path.format(**NEVER)


def things_of(site: Site, organization: str, model: tuple[str, str]) -> Things:
    """Make a thing of each kind for an organization, as its owner or administrator would."""
    number = next(_numbers)
    made = {"model_id": model[0], "deployment_id": model[1], "organization_id": organization}
    for kind, path, body, answer in (
        ("key_id", "api-keys", {"role": "viewer"}, "key_id"),
        ("member_id", "members", _member(number), "member_id"),
        ("role", "roles", {"name": f"r-{number}", "permissions": []}, "name"),
        ("server", "registries", _login(number), "server"),
        ("secret", "secrets", {"name": f"s-{number}", "value": "v"}, "name"),
    ):
        told = site.daemon.call("POST", f"/v1/{path}", {**body, "organization": organization})
        assert told.status in {200, 201}, told
        made[kind] = told.json[answer]
    told = site.daemon.call("POST", f"/v1/custom-models/{model[0]}/share", _share(number))
    assert told.status == 201, told
    return Things({**made, "share_id": told.json["share_id"]})


def _member(number: int) -> dict[str, Any]:
    return {"kind": "uid", "subject": str(number), "bindings": [{"role": "viewer"}]}


def _share(number: int) -> dict[str, Any]:
    return {"allowed_organizations": [f"borrower-{number}"], "permissions": ["read"]}


def _login(number: int) -> dict[str, Any]:
    return {"server": f"own{number}.example.com", "username": "u", "password": "p"}


def ask(site: Site, operation: Operation, path: str, key: str | None) -> Answer:
    """Carry out an operation so that it changes as little as may be."""
    headers = STALE if operation.conditional else {}
    body = body_of(operation)
    return site.daemon.call(operation.method, path, body, key=key, headers=headers)


ON_THINGS = [operation for operation in OPERATIONS if parameters(operation)]
__all__ = ["NEVER", "ON_THINGS", "OPERATIONS", "OURS", "Things", "ask", "small"]
