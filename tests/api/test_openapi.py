"""The OpenAPI document says what is served: no more, no less, and nothing that dangles."""

import asyncio
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from prsmd.api.app import OPERATIONS
from prsmd.api.monitoring import OPEN_OPERATIONS
from prsmd.api.openapi import Document, describe
from prsmd.domain.access import ROLES, Permission
from tests.api.conftest import Site

METHODS = {"get", "put", "post", "delete", "patch"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return describe(OPERATIONS, OPEN_OPERATIONS)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_what_is_served_is_described_and_what_is_described_is_served(site: Site, document):
    assert site.daemon.call("GET", "/openapi.json").json == document
    for method, path, _ in operations(document):
        concrete = re.sub(r"{\w+}", "nothing", path)
        answer = site.daemon.call(method.upper(), concrete, key="")
        opened = path in {"/healthz", "/readyz"}
        assert answer.status == (200 if opened else 401), (method, path)
        allowed = site.daemon.call("TRACE", concrete).headers["Allow"]
        described = {name.upper() for name in document["paths"][path]}
        assert set(allowed.split(",")) - {"HEAD"} >= described


def test_every_row_of_the_route_table_is_in_the_document(document):
    rows = {(row.method.lower(), row.path) for row in OPERATIONS}
    rows |= {("get", row.path) for row in OPEN_OPERATIONS}

    assert {(method, path) for method, path, _ in operations(document)} == rows
    assert len(rows) == len(OPERATIONS) + len(OPEN_OPERATIONS)


def test_the_document_has_the_form_that_openapi_3_1_asks_for(document):
    assert document["openapi"] == "3.1.0"
    assert set(document["info"]) >= {"title", "version"}
    for method, path, operation in operations(document):
        assert path.startswith("/")
        assert method in METHODS
        assert operation["summary"]
        assert operation["description"]
        assert operation["responses"]
        assert all(re.fullmatch(r"[1-5](\d\d|XX)", status) for status in operation["responses"])
        for answer in operation["responses"].values():
            assert answer["description"]
        for parameter in operation["parameters"]:
            assert set(parameter) >= {"name", "in", "schema"}
            assert parameter["in"] in {"path", "query", "header"}


def test_every_operation_has_a_name_of_its_own(document):
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)


def test_path_parameters_are_those_of_the_path(document):
    for _, path, operation in operations(document):
        named = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
        assert named == re.findall(r"{(\w+)}", path)
        assert all(p["required"] for p in operation["parameters"] if p["in"] == "path")


def test_every_reference_leads_somewhere(document):
    found = set(references(document))

    assert found
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_bodies_are_described_and_closed_to_unknown_fields(document):
    for row in OPERATIONS:
        operation = document["paths"][row.path][row.method.lower()]
        assert ("requestBody" in operation) == (row.body is not None or row.uploads)
    for name, schema in document["components"]["schemas"].items():
        closed = schema.get("additionalProperties") is False
        assert closed or name == "Error" or "enum" in schema
    deploy = document["components"]["schemas"]["DeployBody"]
    assert deploy["required"] == ["model_name", "deployment_config"]


_OWN_QUOTA = "/v1/organizations/{organization_id}/quota"  # everybody may see it


def test_every_permission_and_role_is_named(document):
    assert document["x-permissions"] == [permission.value for permission in Permission]
    assert set(document["x-roles"]) == set(ROLES)
    needed = {operation.get("x-permission") for _, _, operation in operations(document)}
    assert needed - {None} <= set(document["x-permissions"])
    for _, path, operation in operations(document):
        if "x-permission" not in operation:
            assert path in {"/healthz", "/readyz", "/v1/auth/me", _OWN_QUOTA, *_OWN}


def test_only_the_probes_are_described_as_open(document):
    opened = {
        path for _, path, operation in operations(document) if operation.get("security") == []
    }
    assert opened == {"/healthz", "/readyz"}


_OWN = {f"/v1/members/{{member_id}}/{verb}" for verb in ("accept", "leave")}


class Making:
    """Makes a document when it is let, counts how often, and fails as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.begun = asyncio.Event()
        self.made = 0
        self._loop = asyncio.get_running_loop()
        self._let = threading.Event()
        self._failures = failures

    def let(self) -> None:
        self._let.set()

    def __call__(self) -> dict[str, Any]:
        self.made += 1
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self._let.wait(30)
        if self.made <= self._failures:
            raise ValueError("told to fail")
        return {"é": 1}


async def test_the_document_is_made_once_beside_the_loop_whoever_stops_waiting_for_it():
    making = Making()
    document = Document(making)
    first, *others = [asyncio.create_task(document.body()) for _ in range(5)]
    await making.begun.wait()
    first.cancel()
    making.let()

    assert {await other for other in others} == {'{"é":1}'.encode()}
    assert await document.body() == '{"é":1}'.encode()
    assert making.made == 1


async def test_a_document_that_could_not_be_made_is_made_again():
    making = Making(failures=1)
    making.let()
    document = Document(making)
    with pytest.raises(ValueError, match="told to fail"):
        await document.body()

    assert await document.body() == '{"é":1}'.encode()
