"""A partial change, as a generated client sends it, changes what was named and nothing else."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from prsmd.api.app import OPERATIONS
from prsmd.api.monitoring import OPEN_OPERATIONS
from prsmd.api.openapi import describe
from prsmd.api.operations import Operation
from prsmd.api.patch import Absent, PatchBody
from prsmd.api.update_schemas import spec_of, update_of
from prsmd.domain.body import body_of, differences, patched
from prsmd.domain.resource_quota import Dimension
from tests.api.conftest import Site
from tests.api.every_field import OTHER, SPEC
from tests.api.generated_client import GeneratedClient, nested

CLIENT = GeneratedClient(describe(OPERATIONS, OPEN_OPERATIONS))
WHOLE = {"SecretValueBody", "LoginBody", "TrafficBody"}  # what a PUT puts in place of what was
PARTIAL = [
    operation
    for operation in OPERATIONS
    if operation.body is not None
    and (operation.method == "PATCH" or operation.body.__name__ not in WHOLE)
    and operation.method in {"PATCH", "PUT"}
]
SAMPLES: Mapping[str, Mapping[tuple[str, ...], Any]] = {
    "KeyChangeBody": {
        ("name",): "renamed",
        ("role",): "viewer",
        ("expires_in_seconds",): 5000,
        ("models",): ["custom_b"],
        ("networks",): ["10.0.0.0/16"],
        ("requests_per_minute",): 7,
        ("requests_per_day",): 8,
    },
    "ShareChangeBody": {
        ("permissions",): ["read"],
        ("allowed_organizations",): ["fourth"],
        ("allowed_keys",): ["9876543210"],
        ("usage_limits", "requests_per_day"): 11,
        ("usage_limits", "total_requests"): 12,
        ("usage_limits", "requests_per_minute"): 13,
        ("usage_limits", "concurrent_requests"): 14,
        ("expires_at",): "2200-01-01T00:00:00Z",
    },
    "MemberChangeBody": {
        ("name",): "renamed",
        ("bindings",): [{"role": "auditor"}],
        ("expires_in_seconds",): 5000,
    },
    "RoleChangeBody": {
        ("permissions",): ["logs.read"],
        ("description",): "other words",
        ("organization",): "company",
    },
    "OrganizationChangeBody": {("display_name",): "Renamed", ("disabled",): True},
    "QuotaChangeBody": {
        **{("hard", name.value): 77 for name in Dimension},
        ("hard", "cpu"): "7500m",
        ("hard", "memory"): "3Gi",
        ("hard", "gpu"): "1.5",
        ("hard", "image_bytes"): "5Gi",
        ("hard", "answer_bytes"): "1Gi",
        ("hard", "environment_per_model"): "128Ki",
    },
}
APART = {("model_name",), ("rollout",)}  # who is meant, and how the change comes about
_numbers = itertools.count(1)


def name_of(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


def value_at(body: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    for name in path:
        body = body[name]
    return body


def fields_of(operation: Operation) -> Iterator[tuple[str, ...]]:
    yield from CLIENT.fields(CLIENT.schema(operation.method, operation.path))


def defaults(node: Any, document: Mapping[str, Any], seen: set[str]) -> Iterator[Any]:
    """Yield every `default` in a schema and in what it refers to."""
    if isinstance(node, list):
        for each in node:
            yield from defaults(each, document, seen)
    if not isinstance(node, dict):
        return
    if "default" in node:
        yield node
    if (name := node.get("$ref", "").rsplit("/", 1)[-1]) and name not in seen:
        yield from defaults(document["components"]["schemas"][name], document, seen | {name})
    for each in node.values():
        yield from defaults(each, document, seen)


@pytest.mark.parametrize("operation", PARTIAL, ids=name_of)
def test_no_field_of_a_partial_change_has_a_default(operation: Operation):
    document = describe(OPERATIONS, OPEN_OPERATIONS)
    schema = CLIENT.schema(operation.method, operation.path)

    assert not [*defaults(schema, document, set())]
    assert operation.body is not None
    assert issubclass(operation.body, PatchBody)
    assert "required" not in schema
    for each in operation.body.model_fields.values():
        assert each.get_default(call_default_factory=True, validated_data={}) is Absent.ABSENT


@pytest.mark.parametrize("operation", PARTIAL, ids=name_of)
def test_a_generated_client_sends_only_the_field_that_is_named(operation: Operation):
    for path in fields_of(operation):
        body = nested(path, "something")
        assert CLIENT.body(operation.method, operation.path, body) == body


def test_how_an_update_or_rollback_goes_has_no_defaults_that_a_client_would_send():
    document = describe(OPERATIONS, OPEN_OPERATIONS)
    rollback = CLIENT.schema("POST", "/v1/custom-models/{model_id}/rollback")
    assert {"$ref": "#/components/schemas/RolloutBody"}.items() <= rollback["properties"][
        "rollout"
    ].items()
    assert not [*defaults(rollback, document, set())]
    for strategy in ("auto", "surge", "recreate", "canary", "shadow", "blue_green"):
        given = {"rollout": {"strategy": strategy}}
        assert CLIENT.body("PUT", "/v1/custom-models/{model_id}", given) == given
        update_of(given)


def test_a_default_in_a_document_is_sent_by_the_generated_client():
    document = {
        "paths": {"/x": {"patch": {"requestBody": {"content": {"application/json": {"schema": {
            "properties": {"role": {"default": "admin"}, "name": {}},
        }}}}}}}
    }  # fmt: skip
    assert GeneratedClient(document).body("PATCH", "/x", {"name": "n"}) == {
        "role": "admin",
        "name": "n",
    }


# A model: an update is a merge patch, looked at as the service does


UPDATE = next(each for each in PARTIAL if each.method == "PUT")
UPDATED = [path for path in fields_of(UPDATE) if path[:1] not in APART]


@pytest.mark.parametrize("path", UPDATED, ids=".".join)
def test_an_update_of_one_field_changes_that_field_of_a_model(path: tuple[str, ...]):
    before = spec_of({"model_name": "m", **SPEC})
    body = CLIENT.body(UPDATE.method, UPDATE.path, nested(path, value_at(OTHER, path)))
    patch, _ = update_of(body)

    after = spec_of({"model_name": "m", **patched(body_of(before), patch)})

    told = ".".join(path).replace("scaling.max_concurrency", "serving.max_concurrency")
    changed = [each.field for each in differences(before, after)]
    assert changed
    assert all(name == told or name.startswith(f"{told}.") for name in changed)


# Keys, shares, members, roles, organizations: asked of a daemon


IGNORED = {"updated_at", "last_used_at", "status", "borrowers", "disabled_at", "message"}
TOLD_AS = {"expires_in_seconds": "expires_at"}
LOCATORS = {("RoleChangeBody", ("organization",))}


class Changed:
    """One thing of a kind that can be changed, made with every field set."""

    def __init__(self, site: Site, operation: Operation) -> None:
        self.site, self.operation = site, operation
        number = next(_numbers)
        assert operation.body is not None
        self.kind = operation.body.__name__
        make = {
            "KeyChangeBody": self._key,
            "ShareChangeBody": self._share,
            "MemberChangeBody": self._member,
            "RoleChangeBody": self._role,
            "OrganizationChangeBody": self._organization,
            "QuotaChangeBody": self._quota,
        }[self.kind]
        self.path, self._list, self._name = make(number)

    def state(self) -> dict[str, Any]:
        """Return how it is now."""
        if self.kind == "QuotaChangeBody":
            quota = self.site.daemon.call("GET", self.path).json["quota"]
            return {"hard": {name: limit["hard"] for name, limit in quota.items()}}
        items = self.site.daemon.call("GET", f"{self._list}?limit=100").json
        [listed] = [value for value in items.values() if isinstance(value, list)]
        [found] = [one for one in listed if self._name in one.values()]
        return {name: value for name, value in found.items() if name not in IGNORED}

    def change(self, given: Mapping[str, Any]) -> Any:
        """Change it as a generated client would."""
        body = CLIENT.body(self.operation.method, self.operation.path, given)
        return self.site.daemon.call(self.operation.method, self.path, body)

    def end(self) -> None:
        """Remove it, so that it is in nobody's way."""
        path = self.path.removesuffix("/quota")
        assert self.site.daemon.call("DELETE", path).status == 200

    def _made(self, path: str, body: Mapping[str, Any], name: str) -> str:
        answer = self.site.daemon.call("POST", path, body)
        assert answer.status == 201, answer
        return str(answer.json[name])

    def _key(self, number: int) -> tuple[str, str, str]:
        body = {
            "name": f"k{number}",
            "role": "invoker",
            "expires_in_seconds": 1000,
            "models": ["custom_a"],
            "networks": ["10.0.0.0/8"],
            "requests_per_minute": 5,
            "requests_per_day": 6,
        }
        made = self._made("/v1/api-keys", body, "key_id")
        return f"/v1/api-keys/{made}", "/v1/api-keys", made

    def _share(self, number: int) -> tuple[str, str, str]:
        model = "/v1/custom-models/custom_legal_analyzer_v2"
        body = {
            "allowed_organizations": [f"borrower-{number}-x"],
            "permissions": ["infer"],
            "usage_limits": {
                "requests_per_day": 1,
                "total_requests": 2,
                "requests_per_minute": 3,
                "concurrent_requests": 4,
            },
            "expires_at": "2100-01-01T00:00:00Z",
        }
        made = self._made(f"{model}/share", body, "share_id")
        return f"{model}/shares/{made}", f"{model}/shares", made

    def _member(self, number: int) -> tuple[str, str, str]:
        bound = [{"role": "viewer"}]
        subject = str(3_000_000 + number)
        body = {"kind": "uid", "subject": subject, "name": "n", "bindings": bound}
        body["expires_in_seconds"] = 1000
        made = self._made("/v1/members", body, "member_id")
        return f"/v1/members/{made}", "/v1/members", made

    def _role(self, number: int) -> tuple[str, str, str]:
        body = {"name": f"own-{number}", "permissions": ["models.read"], "description": "words"}
        made = self._made("/v1/roles", body, "name")
        return f"/v1/roles/{made}", "/v1/roles", made

    def _organization(self, number: int) -> tuple[str, str, str]:
        body = {"organization_id": f"changed-{number}", "display_name": "Named"}
        made = self._made("/v1/organizations", body, "organization_id")
        return f"/v1/organizations/{made}", "/v1/organizations", made

    def _quota(self, number: int) -> tuple[str, str, str]:
        path, listed, made = self._organization(1000 + number)
        return f"{path}/quota", listed, made


LIVE = [each for each in PARTIAL if each is not UPDATE]


def test_every_field_of_every_partial_change_has_a_sample():
    for operation in LIVE:
        assert operation.body is not None
        assert set(fields_of(operation)) == set(SAMPLES[operation.body.__name__])


CASES = [
    pytest.param(operation, path, id=f"{operation.body.__name__}-{'.'.join(path)}")
    for operation in LIVE
    if operation.body is not None
    for path in SAMPLES[operation.body.__name__]
    if path != ("allowed_keys",)  # of another kind of share
]


def different(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the paths of what differs."""
    found: list[tuple[str, ...]] = []
    for name in before:
        if isinstance(before[name], dict):
            found += [(name, *rest) for rest in different(before[name], after[name])]
        elif before[name] != after[name]:
            found.append((name,))
    return found


@pytest.mark.parametrize(("operation", "path"), CASES)
def test_one_field_is_changed_and_nothing_else(
    site: Site, operation: Operation, path: tuple[str, ...]
):
    thing = Changed(site, operation)
    before = thing.state()

    answer = thing.change(nested(path, SAMPLES[thing.kind][path]))

    assert answer.status == 200, answer
    told = tuple(TOLD_AS.get(name, name) for name in path)
    locator = (thing.kind, path) in LOCATORS
    assert different(before, thing.state()) == ([] if locator else [told])
    if path == ("disabled",):
        thing.change({"disabled": False})
    thing.end()


@pytest.mark.parametrize(("operation", "path"), CASES)
def test_null_takes_away_what_can_be_without_and_is_refused_for_the_rest(
    site: Site, operation: Operation, path: tuple[str, ...]
):
    thing = Changed(site, operation)
    before = thing.state()
    schema = CLIENT.property(CLIENT.schema(operation.method, operation.path), path)
    nullable = {"type": "null"} in schema.get("anyOf", ())

    answer = thing.change(nested(path, None))

    told = tuple(TOLD_AS.get(name, name) for name in path)
    if (thing.kind, path) in LOCATORS:
        assert different(before, thing.state()) == []
    elif nullable:
        assert answer.status == 200, answer
        assert different(before, after := thing.state()) == [told]
        assert value_at(after, told) is None
    else:
        assert answer.status == 400, answer
        [problem] = answer.json["error"]["details"]["validation_errors"]
        assert problem["field"] in {".".join(path), path[0]}
        assert different(before, thing.state()) == []
    thing.end()


def test_the_value_of_a_field_that_was_not_sent_cannot_be_mistaken_for_one():
    for operation in LIVE:
        assert operation.body is not None
        empty = operation.body()
        assert isinstance(empty, PatchBody)
        assert empty.given() == {}
        assert {value for _, value in empty} == {Absent.ABSENT}
        with pytest.raises(ValidationError):
            operation.body(**{next(iter(operation.body.model_fields)): Absent.ABSENT})
