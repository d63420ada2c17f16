"""Whatever an organization's callers can make without end is bounded, exactly and in words."""

import asyncio
import contextlib
import dataclasses
from pathlib import Path

import pytest

from prsmd.api.update_schemas import spec_of
from prsmd.domain.access import Permission
from prsmd.domain.deployment import ScalingStrategy
from prsmd.domain.errors import (
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    ResourceQuotaExceededError,
    StorageFullError,
)
from prsmd.domain.quantity import GIB
from prsmd.domain.resource_quota import SUMMED, Dimension
from prsmd.domain.rollout import RolloutPhase
from prsmd.domain.spec import Resources
from prsmd.service import keys
from prsmd.service.keys import KeyRequest
from prsmd.service.members import BindingWish, MemberWish
from prsmd.service.registries import LoginRequest
from prsmd.service.resource_quotas import LimitChange, ensure_defaults
from prsmd.service.roles import RoleWish
from prsmd.service.secrets import SecretRequest
from prsmd.service.shares import ShareRequest
from prsmd.service.updates import RollbackRequest, UpdateRequest
from prsmd.settings import QuotaSection
from prsmd.store.migrate import known_migrations
from tests.engine.harness import Life, caller, spec
from tests.service.revising import desk

D = Dimension
OWNER, DEPLOYER = caller("owner"), caller("deployer")


async def limit(life: Life, **hard):
    changes = {D(name): LimitChange(hard=value) for name, value in hard.items()}
    return await life.services.quotas.change(caller(), "default", changes)


async def used(life: Life):
    return (await life.services.quotas.own(OWNER)).used


async def model(life: Life, n: int):
    return await life.services.deployments.deploy(DEPLOYER, f"model-{n}", spec())


async def key(life: Life, n: int):
    return await life.services.keys.create(OWNER, KeyRequest(name=f"key {n}", role="viewer"))


async def member(life: Life, n: int):
    wish = MemberWish(kind="oidc", subject=f"s{n}", bindings=[BindingWish("viewer")])
    return await life.services.members.add(caller(), wish)


async def role(life: Life, n: int):
    granted = frozenset({Permission.MODELS_READ})
    return await life.services.roles.create(OWNER, RoleWish(name=f"role{n}", permissions=granted))


async def secret(life: Life, n: int):
    return await life.services.secrets.save(OWNER, SecretRequest(name=f"s{n}", value=b"v"))


async def login(life: Life, n: int):
    request = LoginRequest(server=f"r{n}.example.com", username="u", password="p")
    return await life.services.registries.save(OWNER, request)


async def share(life: Life, n: int):
    with contextlib.suppress(Exception):
        await life.deploy("lent")
    request = ShareRequest(
        organizations=frozenset({f"friend-{n}"}), permissions=frozenset({Permission.MODELS_READ})
    )
    return await life.services.shares.create(OWNER, "lent", request)


MAKES = {
    D.MODELS: model,
    D.REPLICAS: model,
    D.CPU: model,
    D.MEMORY: model,
    D.KEYS: key,
    D.MEMBERS: member,
    D.ROLES: role,
    D.SECRETS: secret,
    D.REGISTRIES: login,
    D.SHARES: share,
}
ELSEWHERE = {
    D.GPU: "as cpu; tests/core",
    D.IMAGE_BYTES: "tests/engine/test_image_quota.py",
    D.ANSWER_BYTES: "tests/store/test_answer_bytes.py",
    D.CONNECTIONS: "tests/api/test_connection_quota.py",
}
# Tables that say whose each row is, and what bounds them.
BOUNDED = {
    "deployments": D.MODELS,
    "revisions": "revisions_per_model",
    "replicas": D.REPLICAS,
    "rollouts": "go with their revisions",
    "events": "1000 of each model are kept",
    "audit": "audit.keep_bytes",
    "api_keys": D.KEYS,  # and the last 1000 that ended
    "timings": "20 of each image and phase, and 5000 in all, are kept",
    "images": D.IMAGE_BYTES,
    "registries": D.REGISTRIES,
    "organizations": "administrators make them",
    "roles": D.ROLES,
    "members": D.MEMBERS,
    "bindings": "100 of each member",
    "shares": D.SHARES,
    "borrowers": "of each share as many as a request may name",
    "leases": "of each key and share, by day",
    "paces": "of each key and share",
    "secrets": D.SECRETS,
    "remembered_answers": D.ANSWER_BYTES,
    "answer_bytes": "one of each organization",
    "meta": "the appliance's own",
    "default_quotas": "one of each dimension",
    "organization_quotas": "one of each dimension",
}


@pytest.mark.parametrize("dimension", MAKES)
async def test_of_many_at_once_exactly_as_many_pass_as_are_left(life: Life, dimension):
    make = MAKES[dimension]
    await make(life, 0)
    there = await used(life)
    each = there[dimension] if dimension in {D.CPU, D.MEMORY} else 1
    hard = there[dimension] + 2 * each
    await limit(life, **{dimension.value: hard})
    done = await asyncio.gather(*(make(life, n) for n in range(1, 13)), return_exceptions=True)
    refused = [one for one in done if isinstance(one, ResourceQuotaExceededError)]
    others = [one for one in done if isinstance(one, Exception) and one not in refused]
    assert not others
    assert len(refused) == 10
    assert (await used(life))[dimension] == hard
    assert all(one.details["limit_type"] == dimension.value for one in refused)
    assert all(f"{dimension.value}: " in one.message for one in refused)


def test_each_dimension_is_tried_here_or_elsewhere():
    assert set(MAKES) | set(ELSEWHERE) == set(SUMMED)
    for place in ELSEWHERE.values():
        named = place.rpartition(" ")[2]
        assert (Path(__file__).parents[2] / named).exists()


async def test_every_table_of_the_state_has_a_bound(life: Life):
    """Whoever adds a table says here what keeps an organization from filling it without end."""
    async with life.database.read() as tx:
        rows = await tx.execute_fetchall(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
    found = {row["name"] for row in rows}
    known = {*BOUNDED, "schema_migrations"}
    anothers = {name for name in found if name.startswith("audit_") or "denial" in name}
    assert found - anothers == known & found
    assert not found - anothers - known
    assert known_migrations()


async def test_a_new_secret_counts_and_another_value_of_it_does_not(life: Life):
    await secret(life, 0)
    await limit(life, secrets=1)
    await secret(life, 0)
    with pytest.raises(ResourceQuotaExceededError):
        await secret(life, 1)


async def test_a_key_that_is_revoked_or_has_expired_makes_room(life: Life):
    made, _ = await key(life, 0)
    brief, _ = await life.services.keys.create(
        OWNER, KeyRequest(name="brief", role="viewer", expires_in_seconds=0.001)
    )
    await asyncio.sleep(0.01)
    await limit(life, keys=1)
    with pytest.raises(ResourceQuotaExceededError):
        await key(life, 1)
    with pytest.raises(ResourceQuotaExceededError):  # it would come back to life
        await life.services.keys.change(OWNER, brief.id, {"expires_at": None})
    await life.services.keys.revoke(OWNER, made.id)
    await key(life, 1)


async def test_what_a_model_asks_for_counts_as_it_is_scaled(life: Life):
    await life.deploy(max_replicas=10)
    await limit(life, replicas=4)
    service = life.services.deployments
    with pytest.raises(ResourceQuotaExceededError, match="replicas: 1 of 4 used, 4 more asked"):
        await service.scale(DEPLOYER, "legal", 5, ScalingStrategy.IMMEDIATE)
    with pytest.raises(ResourceQuotaExceededError, match="replicas: 1 of 4 used, 4 more asked"):
        await life.services.rehearsals.scale(DEPLOYER, "legal", 5, ScalingStrategy.IMMEDIATE)
    await service.scale(DEPLOYER, "legal", 4, ScalingStrategy.GRADUAL)
    assert (await used(life))[D.REPLICAS] == 4
    await service.scale(DEPLOYER, "legal", 1, ScalingStrategy.IMMEDIATE)
    assert (await used(life))[D.REPLICAS] == 1


def larger(**scaling):
    resources = {"cpu": "2", "memory": "1Gi"}
    patch = {"deployment_config": {"resource_requirements": resources, "scaling": scaling}}
    return UpdateRequest(patch=patch, read=spec_of)


async def test_an_update_counts_beside_what_it_can_go_back_to(life: Life):
    opened = await desk(life)
    await limit(life, cpu=1900)
    for service in (life.services.revisions, life.services.rehearsals):
        with pytest.raises(ResourceQuotaExceededError, match="cpu: 500m of 1900m used"):
            await service.update(DEPLOYER, "legal", larger())
    await limit(life, cpu=2000)
    await life.services.revisions.update(DEPLOYER, "legal", larger())
    assert (await used(life))[D.CPU] == 2000
    # A smaller one does not make room while the rollout can still go back.
    await opened.reach(RolloutPhase.COMPLETED, finished_at=1.0, outcome="done")
    small = UpdateRequest(
        patch={"deployment_config": {"resource_requirements": {"cpu": "100m"}}}, read=spec_of
    )
    await life.services.revisions.update(DEPLOYER, "legal", small)
    assert (await used(life))[D.CPU] == 2000
    with pytest.raises(ResourceQuotaExceededError):
        await model(life, 1)
    await life.services.revisions.rollback(DEPLOYER, "legal", RollbackRequest())
    assert (await used(life))[D.CPU] == 2000


async def test_a_rollback_to_a_larger_revision_needs_room_for_it(life: Life):
    opened = await desk(life)
    await life.services.revisions.update(DEPLOYER, "legal", larger())
    await opened.complete()
    small = {"deployment_config": {"resource_requirements": {"cpu": "100m"}}}
    await life.services.revisions.update(
        DEPLOYER, "legal", UpdateRequest(patch=small, read=spec_of)
    )
    await opened.complete()
    await limit(life, cpu=1000)
    for service in (life.services.revisions, life.services.rehearsals):
        with pytest.raises(ResourceQuotaExceededError, match="cpu: 100m of 1 used"):
            await service.rollback(DEPLOYER, "legal", RollbackRequest(revision=2))


async def test_bounds_that_raise_the_count_of_a_running_model_count(life: Life):
    await life.deploy()
    await limit(life, replicas=2)
    more = {"deployment_config": {"scaling": {"min_replicas": 3}}}
    with pytest.raises(ResourceQuotaExceededError, match="replicas: 1 of 2 used, 2 more asked"):
        await life.services.revisions.update(
            DEPLOYER, "legal", UpdateRequest(patch=more, read=spec_of)
        )


async def test_a_deploy_that_is_refused_is_refused_as_a_dry_run_in_the_same_words(life: Life):
    await limit(life, models=0)
    said = []
    for service in (life.services.deployments, life.services.rehearsals):
        with pytest.raises(ResourceQuotaExceededError) as refused:
            await service.deploy(DEPLOYER, "legal", spec())
        said.append((refused.value.message, dict(refused.value.details)))
    assert said[0] == said[1]
    assert "models: 0 of 0 used, 1 more asked" in said[0][0]


async def test_a_lowered_quota_stops_nothing_and_lets_nothing_grow(life: Life):
    await life.deploy()
    await life.scale(3)
    await life.settle()
    report = await limit(life, replicas=1, models=0)
    assert report.used[D.REPLICAS] == 3
    await life.settle()
    assert len(await life.active()) == 3
    with pytest.raises(ResourceQuotaExceededError):
        await life.services.deployments.scale(DEPLOYER, "legal", 4, ScalingStrategy.IMMEDIATE)
    await life.update({"A": "1"})  # asks for no more
    await life.services.deployments.scale(DEPLOYER, "legal", 2, ScalingStrategy.IMMEDIATE)


async def test_bounds_of_each_model_name_the_field_and_the_limit(life: Life):
    await limit(life, replicas_per_model=5, environment_per_model=8192)
    service = life.services.deployments
    for given, field in (
        (spec(min_replicas=6, max_replicas=9), "min_replicas"),
        (spec(max_replicas=6), "max_replicas"),
        (dataclasses.replace(spec(), environment={"A": "x" * 9000}), "environment"),
        (dataclasses.replace(spec(), args=("x" * 4000,) * 3), "args"),
    ):
        with pytest.raises(InvalidInputError, match=rf"{field}: .*(at most 5|8Ki)"):
            await service.deploy(DEPLOYER, "legal", given)
        with pytest.raises(InvalidInputError, match=field):
            await life.services.rehearsals.deploy(DEPLOYER, "legal", given)
    await service.deploy(DEPLOYER, "legal", spec(max_replicas=5))


async def test_a_model_beyond_a_lowered_bound_can_still_be_changed_otherwise(life: Life):
    await life.deploy(max_replicas=50)
    await limit(life, replicas_per_model=5)
    await life.update({"A": "1"})
    more = {"deployment_config": {"scaling": {"max_replicas": 60}}}
    with pytest.raises(InvalidInputError, match="at most 5"):
        await life.services.revisions.update(
            DEPLOYER, "legal", UpdateRequest(patch=more, read=spec_of)
        )


async def test_only_administrators_set_a_quota_and_it_is_on_record(life: Life):
    service = life.services.quotas
    for who in ("owner", "deployer"):
        with pytest.raises(PermissionDeniedError):
            await service.change(caller(who), "default", {D.KEYS: LimitChange(hard=9)})
    await limit(life, keys=9)
    assert (await service.own(OWNER)).limit(D.KEYS).hard == 9
    await service.change(caller(), "default", {D.KEYS: LimitChange(reset=True)})
    assert (await service.own(OWNER)).limit(D.KEYS).hard is None  # these tests have no defaults
    with pytest.raises(NotFoundError):
        await service.change(caller(), "nobody", {D.KEYS: LimitChange(hard=9)})
    with pytest.raises(NotFoundError):
        await service.get(caller("owner", "rival"), "default")
    done = await life.audit()
    assert done.count(("organizations.quota", "allowed")) == 2
    assert done.count(("organizations.quota", "denied")) == 1
    assert done.count(("node.manage", "denied")) == 2


async def test_defaults_hold_where_no_administrator_set_anything(life: Life):
    await limit(life, keys=9)
    await ensure_defaults(life.database, QuotaSection(keys=3, models=7).hard, 1.0)
    report = await life.services.quotas.own(OWNER)
    assert (report.limit(D.KEYS).hard, report.limit(D.KEYS).is_default) == (9, False)
    assert (report.limit(D.MODELS).hard, report.limit(D.MODELS).is_default) == (7, True)
    await ensure_defaults(life.database, QuotaSection(models="unlimited").hard, 1.0)
    assert (await life.services.quotas.own(OWNER)).limit(D.MODELS).hard is None


async def test_defaults_that_hold_already_need_no_write(life: Life, monkeypatch):
    await ensure_defaults(life.database, QuotaSection(keys=3).hard, 1.0)

    async def full(_: object) -> None:
        raise StorageFullError("The disk is full.")

    monkeypatch.setattr(life.database, "write", full)
    await ensure_defaults(life.database, QuotaSection(keys=3).hard, 2.0)
    with pytest.raises(StorageFullError):
        await ensure_defaults(life.database, QuotaSection(keys=4).hard, 3.0)


async def test_what_models_ask_for_is_counted_in_every_dimension_of_compute(life: Life):
    given = dataclasses.replace(
        spec(min_replicas=2), resources=Resources(cpu_millis=250, memory_bytes=GIB)
    )
    await life.deploy(given=given)
    report = await life.services.quotas.own(OWNER)
    assert (report.used[D.CPU], report.used[D.MEMORY], report.used[D.REPLICAS]) == (500, 2 * GIB, 2)
    assert report.reserved == {} or set(report.reserved.values()) == {0}
    await life.settle()
    report = await life.services.quotas.own(OWNER)
    assert report.reserved[D.CPU] == 500
    await life.delete()
    assert (await used(life))[D.CPU] == 0
    assert (await used(life))[D.MODELS] == 1  # until it has gone


async def test_of_a_models_revisions_the_newest_and_what_is_needed_are_kept(life: Life):
    opened = await desk(life)
    await limit(life, revisions_per_model=3)
    for n in range(8):
        await life.update({"N": str(n)})
    numbers = [one.number for one in await opened.history()]
    assert numbers == [1, 7, 8, 9]  # 1 is what the rollout goes back to
    await opened.complete()
    await life.update({"N": "more"})
    assert [one.number for one in await opened.history()] == [8, 9, 10]
    await life.services.revisions.rollback(DEPLOYER, "legal", RollbackRequest())
    assert (await opened.deployment()).revision == 9


async def test_of_keys_that_have_ended_only_the_last_are_remembered(life: Life, monkeypatch):
    monkeypatch.setattr(keys, "_KEPT_ENDED", 2)
    made = []
    for n in range(5):
        one, _ = await key(life, n)
        made.append(one.id)
        await life.services.keys.revoke(OWNER, one.id)
    last, _ = await key(life, 9)
    found, _ = await life.services.keys.page(OWNER, 20, 0)
    assert {one.id for one in found} == {made[3], made[4], last.id}
    with pytest.raises(NotFoundError):
        await life.services.keys.get(OWNER, made[0])


# What stores something that counts, and the modules that call it: each asks for leave first, in the
# same transaction. Whoever adds a caller asks too, and names it here.
CREATORS = {
    "deployments.add": {"prsmd.service.deployments"},
    "keys.add": {"prsmd.service.keys"},
    "members.add": {"prsmd.service.members"},
    "roles.put": {"prsmd.service.roles"},
    "secrets.save": {"prsmd.service.secrets"},
    "registries.save": {"prsmd.service.registries"},
    "shares.add": {"prsmd.service.shares"},
    "images.note": {"prsmd.engine.image_quota", "prsmd.engine.stock"},
    "idempotency.add": {"prsmd.service.idempotency"},
    "replicas.add": {"prsmd.engine.executor"},  # placed within the quota by `reconcile`
    "revisions.add": {"prsmd.service.deployments", "prsmd.service.succession"},
    "deployments.set_asked": {"prsmd.service.deployments"},
    "deployments.set_recommendation": {"prsmd.engine.autoscaler"},
    "deployments.set_revision": {"prsmd.service.succession", "prsmd.engine.progress"},
}


def test_nothing_that_counts_is_stored_by_anyone_who_does_not_ask_for_leave():
    root = Path(__file__).parents[2]
    found: dict[str, set[str]] = {name: set() for name in CREATORS}
    for path in (root / "prsmd").rglob("*.py"):
        if "store" in path.parts:
            continue
        text = path.read_text()
        for name in CREATORS:
            if f" {name}(" in text or f"({name}," in text:
                found[name].add(".".join(path.relative_to(root).with_suffix("").parts))
    assert found == CREATORS


async def test_limits_that_count_in_memory_hold_as_soon_as_they_are_stored(life: Life):
    published = life.appliance.entrance.limits
    assert published.hard("default", D.CONNECTIONS) is None
    await ensure_defaults(life.database, QuotaSection(connections=7).hard, 1.0)
    async with life.database.read() as tx:
        await published.load(tx)
    await life.services.organizations.create(caller(), "lab", "Lab")
    assert published.hard("lab", D.CONNECTIONS) == published.hard("default", D.CONNECTIONS) == 7
    await limit(life, connections=3)
    assert published.hard("default", D.CONNECTIONS) == 3
    published.open_connections = {"default": 2}.__getitem__
    assert (await used(life))[D.CONNECTIONS] == 2
    await life.services.quotas.change(caller(), "default", {D.CONNECTIONS: LimitChange(reset=True)})
    assert published.hard("default", D.CONNECTIONS) == 7
