"""A user of this machine in several organizations, over the socket, with prsmctl as it is."""

import asyncio
import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from prsm_sdk import PRSMClient, errors
from prsmd.cli.main import main
from tests.api.conftest import Site

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
ALICE = 54_987
HEADER = "X-PRSMD-Organization"


@pytest.fixture
def orgs(site: Site):
    """Two organizations of their own, with an owner's key each; gone afterwards."""
    names = ("north", "south")
    keys = {name: site.daemon.key("owner", name) for name in names if _make(site, name)}
    yield keys
    for member in site.daemon.call("GET", "/v1/members?limit=100").json["members"]:
        if member["subject"] == str(ALICE):
            site.daemon.call("DELETE", f"/v1/members/{member['member_id']}")


def _make(site: Site, name: str) -> bool:
    return site.daemon.call("POST", "/v1/organizations", {"organization_id": name}).status in {
        201,
        409,
    }


@dataclasses.dataclass(frozen=True)
class Done:
    """What prsmctl came to."""

    returncode: int
    stdout: str
    stderr: str


@contextlib.contextmanager
def alice(site: Site) -> Iterator[None]:
    """Be Alice, who may open the socket, as far as the kernel tells others."""
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(site.daemon.socket.stat().st_gid)
    os.seteuid(ALICE)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def ctl(site: Site, *arguments: str, env: dict[str, str] | None = None) -> Done:
    """Run prsmctl as Alice; what it needs was imported before."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        with alice(site):
            code = main(["--socket", str(site.daemon.socket), *arguments])
    return Done(code, out.getvalue(), err.getvalue())


def whoami(site: Site, *arguments: str, env: dict[str, str] | None = None) -> Any:
    done = ctl(site, "-o", "json", *arguments, "whoami", env=env)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def invite(site: Site, key: str, role: str) -> str:
    body = {"kind": "uid", "subject": str(ALICE), "bindings": [{"role": role}]}
    made = site.daemon.call("POST", "/v1/members", body, key=key)
    assert made.status == 201, made
    assert made.json["status"] == "invited"
    return str(made.json["member_id"])


@pytest.fixture
def reachable(site: Site):
    """Let others through the folders above the socket, as /run would; and import prsmctl."""
    for command in (["whoami"], ["models"], ["member", "list"]):
        assert main(["--socket", str(site.daemon.socket), *command]) == 0
    path = site.daemon.socket.parent
    modes = {}
    for folder in (path, *path.parents):
        modes[folder] = folder.stat().st_mode
        if not modes[folder] & 0o001:
            folder.chmod(modes[folder] | 0o011)
    yield
    for folder, mode in modes.items():
        folder.chmod(mode)


@pytest.mark.usefixtures("reachable")
def test_a_user_is_invited_accepts_and_says_for_whom_each_call_is(site: Site, orgs):
    assert "has no role here" in whoami(site)
    first = invite(site, orgs["north"], "viewer")
    told = whoami(site)
    assert (told["organization"], told["permissions"]) == (None, [])
    assert [each["status"] for each in told["memberships"]] == ["invited"]
    assert ctl(site, "models").returncode != 0

    assert ctl(site, "member", "accept", first).returncode == 0
    assert whoami(site)["organization"] == "north"
    second = invite(site, orgs["south"], "operator")
    assert whoami(site)["organization"] == "north"
    refused = ctl(site, "--organization", "south", "models")
    assert "You do not belong to organization south" in refused.stderr

    assert ctl(site, "member", "accept", second).returncode == 0
    unclear = ctl(site, "models")
    assert "You belong to several organizations: north, south" in unclear.stderr
    assert whoami(site)["organization"] is None
    for name, role in (("north", "viewer"), ("south", "operator")):
        for found in (
            whoami(site, "--organization", name),
            whoami(site, env={"PRSMD_ORGANIZATION": name}),
        ):
            assert (found["organization"], found["role"]) == (name, role)
    assert ctl(site, "member", "leave", second).returncode == 0
    assert whoami(site)["organization"] == "north"
    actions = [each[:3] for each in site.audit() if each[3] == f"uid:{ALICE}"]
    assert ("members.accept", f"member:{second}", "allowed") in actions
    assert ("members.leave", f"member:{second}", "allowed") in actions


@pytest.mark.usefixtures("reachable")
def test_an_invitation_of_somebody_else_is_not_there(site: Site, orgs):
    mine = invite(site, orgs["north"], "viewer")
    for key in (None, orgs["north"], orgs["south"]):
        answer = site.daemon.call("POST", f"/v1/members/{mine}/accept", key=key)
        never = site.daemon.call("POST", "/v1/members/member_000000000000/accept", key=key)
        assert (answer.status, never.status) == (404, 404)
    assert whoami(site)["memberships"][0]["status"] == "invited"


@pytest.mark.usefixtures("reachable")
def test_a_program_accepts_says_for_whom_it_calls_and_leaves(site: Site, orgs):
    invitations = [invite(site, orgs[name], "invoker") for name in orgs]
    foreign = invite_another(site, orgs["north"])
    url = f"unix://{site.daemon.socket}"

    async def program() -> None:
        async with PRSMClient(base_url=url) as unclear:
            for member_id in invitations:
                assert (await unclear.members.accept(member_id)).status == "active"
            for act in (unclear.members.accept, unclear.members.leave):
                with pytest.raises(errors.NotFoundError, match="of yours"):
                    await act(foreign)
            with pytest.raises(errors.ConflictError, match="belong to several"):
                await unclear.models.list()
        for name in orgs:
            async with PRSMClient(base_url=url, organization=name) as named:
                assert (await named.who_am_i()).organization == name
                assert await named.models.list() is not None
        async with PRSMClient(base_url=url, organization="company") as wrong:
            with pytest.raises(errors.PermissionDeniedError, match="do not belong"):
                await wrong.who_am_i()
        async with PRSMClient(base_url=url) as leaving:
            assert (await leaving.members.leave(invitations[0])).member_id == invitations[0]
            assert (await leaving.who_am_i()).organization == "south"

    with alice(site):
        asyncio.run(program())
    site.daemon.call("DELETE", f"/v1/members/{foreign}")


def invite_another(site: Site, key: str) -> str:
    body = {"kind": "uid", "subject": str(ALICE + 1), "bindings": [{"role": "viewer"}]}
    return str(site.daemon.call("POST", "/v1/members", body, key=key).json["member_id"])


@pytest.mark.parametrize("name", ["", "Upper", "a b", "x" * 64])
def test_a_client_that_is_given_no_name_of_an_organization_asks_nothing(site: Site, name: str):
    url = f"unix://{site.daemon.socket}"
    with pytest.raises(errors.ConfigurationError, match="no organization's name"):
        PRSMClient(base_url=url, organization=name)
    done = ctl(site, "--organization", name, "models")
    assert done.returncode == 78
    assert "no organization's name" in done.stderr


@pytest.mark.parametrize("value", ["", "Upper", "a b", "x" * 64, "../x"])
def test_what_is_no_name_of_an_organization_is_refused(site: Site, value: str):
    answer = site.daemon.call("GET", "/v1/auth/me", headers={HEADER: value})
    assert answer.status == 400
    [problem] = answer.json["error"]["details"]["validation_errors"]
    assert problem["field"] == HEADER


def test_an_organization_that_is_named_twice_is_refused(site: Site):
    head = f"GET /v1/auth/me HTTP/1.1\r\nHost: localhost\r\n{HEADER}: company\r\n{HEADER}: rival"
    assert b" 400 " in site.unix(head.encode() + b"\r\nConnection: close\r\n\r\n").split(b"\r\n")[0]


def test_a_key_acts_for_its_own_organization_and_for_no_other(site: Site):
    key = site.keys["owner"]
    own = site.daemon.call("GET", "/v1/auth/me", key=key, headers={HEADER: "company"})
    assert own.json["organization"] == "company"
    for name in ("rival", "nowhere"):
        other = site.daemon.call("GET", "/v1/auth/me", key=key, headers={HEADER: name})
        assert other.status == 403
        assert "You do not belong" in other.json["message"]


def test_the_same_request_for_another_organization_is_another_one(site: Site, orgs):
    """An administrator's idempotency key does not bring one organization's answer to another."""
    once = {"Idempotency-Key": "one-and-the-same"}
    body = {"name": "idempotent", "permissions": []}
    made = [
        site.daemon.call("POST", "/v1/roles", body, headers={HEADER: name, **once}) for name in orgs
    ]
    assert [each.status for each in made] == [201, 409]
    assert made[0].json["organization"] == "north"
    for name in ("north", "south"):
        gone = site.daemon.call("DELETE", "/v1/roles/idempotent", headers={HEADER: name})
        assert gone.status == (200 if name == "north" else 404)
