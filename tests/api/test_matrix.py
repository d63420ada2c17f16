"""Every operation by every role on what is its own, lent and another's: as the table says.

What is expected is made from `PERMISSIONS`, `ROLES` and the route table, and from nothing else.
"""

import dataclasses
import types
from collections.abc import Iterator
from typing import Any

import pytest

from prsmd.api.app import build
from prsmd.api.monitoring import OPEN_OPERATIONS
from prsmd.api.operations import Operation
from prsmd.domain.access import PERMISSIONS, ROLES
from tests.api.cells import (
    NEVER,
    ON_THINGS,
    OPERATIONS,
    OURS,
    Things,
    ask,
    body_of,
    name_of,
    never_path,
    parameters,
    things_of,
)
from tests.api.conftest import Site, small
from tests.support.daemon import Answer

NOTHING: Any = types.SimpleNamespace(
    body_bytes=1, body_seconds=1, connection_limits=None, underway=None
)  # an application that nobody asks
NOT_ADMIN = [role for role in ROLES if role != "admin"]
SAYS_WHEN = {"X-Request-ID", "Date", "Content-Length"}
MAKES_OR_IS_THERE = {200, 201, 409}


@dataclasses.dataclass(frozen=True)
class Grounds:
    """A key of every role of `company`, and what is its own, lent to it, and another's."""

    keys: dict[str, str]
    own: Things
    foreign: Things
    lent: Things
    foreign_words: tuple[str, ...]


@pytest.fixture(scope="module")
def grounds(site: Site) -> Iterator[Grounds]:
    daemon = site.daemon
    made = daemon.call("POST", "/v1/organizations", {"organization_id": "third"})
    assert made.status in {201, 409}
    keys = {role: daemon.key(role) for role in ROLES}
    foreign = things_of(site, "rival", (site.other_model, site.other_deployment))
    lent_model = "/v1/custom-models/custom_lent"
    body = small("rival-lent", min_replicas=0)
    accepted = daemon.call("POST", "/v1/custom-models/deploy", body, key=site.other_key)
    assert accepted.status == 202, accepted
    share = {
        "share_type": "organization",
        "allowed_organizations": ["company"],
        "permissions": ["read", "infer", "logs", "usage"],
    }
    told = daemon.call("POST", f"{lent_model}/share", share, key=site.other_key)
    assert told.status == 201, told
    names = {
        "model_id": "custom_lent",
        "deployment_id": accepted.json["deployment_id"],
        "share_id": told.json["share_id"],
    }
    lent = Things({**NEVER, **names})
    own = things_of(site, "company", (OURS, site.accepted["deployment_id"]))
    words = (site.other_model, "rival-plans", *(foreign.of[kind] for kind in ("key_id", "role")))
    yield Grounds(keys=keys, own=own, foreign=foreign, lent=lent, foreign_words=words)
    daemon.call("DELETE", lent_model, key=site.other_key)
    daemon.until(
        "the lent model is gone",
        lambda: daemon.call("GET", lent_model, key=site.other_key).status == 404,
    )


def may(operation: Operation, role: str) -> bool:
    return operation.permission is None or operation.permission in ROLES[role]


def fresh(site: Site, operation: Operation, things: Things, organization: str) -> Things:
    """Return other things where the operation would do away with these."""
    if operation.method != "DELETE" or {"member_id", "name", "server", "share_id"}.isdisjoint(
        parameters(operation)
    ):
        return things
    return things_of(site, organization, (things.of["model_id"], things.of["deployment_id"]))


def test_every_route_of_the_application_is_in_the_matrix(site: Site):
    """A route that is added has its cells, or fails here: nothing is served beside the table."""
    described = site.daemon.call("GET", "/openapi.json").json["paths"]
    served = {(m.upper(), path) for path, methods in described.items() for m in methods}
    opened = {("GET", each.path) for each in OPEN_OPERATIONS}
    assert served == {(each.method, each.path) for each in OPERATIONS} | opened

    application = build(NOTHING, NOTHING)
    routed = {(route.method, route.resource.canonical) for route in application.router.routes()}
    routed -= {("*", "/{nowhere}")}  # what nothing is served at
    assert {each for each in routed if each[0] != "HEAD"} == served
    unknown = {name for each in OPERATIONS for name in parameters(each)} - NEVER.keys()
    assert unknown == set(), "name what never was for the parameter in cells.NEVER"
    for operation in OPERATIONS:
        body_of(operation)
        assert operation.permission is None or operation.permission in PERMISSIONS


def is_refusal(answer: Answer) -> bool:
    return answer.status in {401, 403}


@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)
def test_at_home_a_role_may_exactly_what_the_table_says(
    site: Site, grounds: Grounds, operation: Operation
):
    wrong = []
    things = fresh(site, operation, grounds.own, "company")
    reference = ask(site, operation, things.path(operation), None)
    assert not is_refusal(reference), reference
    for role in ROLES:
        things = fresh(site, operation, grounds.own, "company")
        answer = ask(site, operation, things.path(operation), grounds.keys[role])
        alike = answer.status == reference.status or (
            {answer.status, reference.status} <= MAKES_OR_IS_THERE
        )
        if may(operation, role):
            if is_refusal(answer) or not alike:
                wrong.append((role, "should be as for the administrator", reference, answer))
        elif answer.status != 403:
            wrong.append((role, "should be denied", answer))
        else:
            needed = answer.json["error"]["details"]["required_permissions"]
            if needed != [operation.permission]:
                wrong.append((role, "should be told what is needed", answer))
        if role != "admin":
            wrong += [(role, word, "is told") for word in grounds.foreign_words
                      if word.encode() in answer.raw]  # fmt: skip
    assert wrong == []


@pytest.mark.parametrize("operation", ON_THINGS, ids=name_of)
def test_what_is_anothers_is_as_if_it_had_never_been(
    site: Site, grounds: Grounds, operation: Operation
):
    wrong = []
    for role in NOT_ADMIN:
        theirs = ask(site, operation, grounds.foreign.path(operation), grounds.keys[role])
        never = ask(site, operation, never_path(operation), grounds.keys[role])
        names = {each: grounds.foreign.value(operation, each) for each in parameters(operation)}
        if made_at_home(operation, theirs):
            for path in (grounds.foreign.path(operation), never_path(operation)):
                site.daemon.call("DELETE", path, key=grounds.keys[role])
        elif theirs.status not in ({404} if may(operation, role) else {403, 404}):
            wrong.append((role, "should not exist", theirs))
        if told(theirs, names.values()) != told(never, NEVER.values()):
            wrong.append((role, "should be as if it had never been", theirs, never))
    assert wrong == []


def made_at_home(operation: Operation, answer: Answer) -> bool:
    """Tell whether it made something of that name in the caller's own organization."""
    return operation.method == "PUT" and answer.status in {200, 201}


def told(answer: Answer, names) -> tuple[object, ...]:
    """Return an answer without what differs between any two requests."""
    text = answer.raw.decode()
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, "NAME")
    body = answer.json
    if "error" not in body:
        return (answer.status,)
    for varying in (body["error"]["request_id"], body["error"]["timestamp"]):
        text = text.replace(varying, "VARIES")
    headers = {name: value for name, value in answer.headers.items() if name not in SAYS_WHEN}
    return answer.status, headers, text


@pytest.mark.parametrize("operation", ON_THINGS, ids=name_of)
def test_the_administrator_of_the_appliance_may_everything_everywhere(
    site: Site, grounds: Grounds, operation: Operation
):
    things = fresh(site, operation, grounds.foreign, "rival")
    answer = ask(site, operation, things.path(operation), grounds.keys["admin"])
    assert not is_refusal(answer), answer


@pytest.mark.parametrize(
    "operation",
    [each for each in ON_THINGS if {"model_id", "deployment_id"} & set(parameters(each))],
    ids=name_of,
)
def test_of_what_is_lent_a_role_may_what_both_the_table_and_the_share_say(
    site: Site, grounds: Grounds, operation: Operation
):
    wrong = []
    path = grounds.lent.path(operation)
    shareable = operation.lent and PERMISSIONS[operation.permission].shareable
    for role in NOT_ADMIN:
        answer = ask(site, operation, path, grounds.keys[role])
        if shareable and may(operation, role):
            reference = ask(site, operation, path, site.other_key)
            if is_refusal(answer) or answer.status != reference.status:
                wrong.append((role, "should be as for the owner", reference, answer))
        elif answer.status not in {403, 404}:
            wrong.append((role, "should be denied", answer))
    assert wrong == []


def test_why_a_model_waits_names_nothing_of_others(site: Site):
    daemon, key = site.daemon, site.other_key
    body = small("rival-waits")
    body["deployment_config"]["resource_requirements"]["gpu"] = "1"
    accepted = daemon.call("POST", "/v1/custom-models/deploy", body, key=key)
    assert accepted.status == 202, accepted
    path = f"/v1/custom-models/deployments/{accepted.json['deployment_id']}"
    theirs = site.accepted["deployment_id"].removeprefix("deploy_").encode()
    try:
        status = daemon.until(
            "it is said why it waits",
            lambda: (
                b"another organization" in (told := daemon.call("GET", path, key=key)).raw and told
            ),
        )
        for answer in (accepted, status, daemon.call("GET", f"{path}/events", key=key)):
            assert theirs not in answer.raw
    finally:
        gone = "/v1/custom-models/rival-waits"
        daemon.call("DELETE", gone, key=key)
        daemon.until("it is gone", lambda: daemon.call("GET", gone, key=key).status == 404)
