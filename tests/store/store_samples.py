"""Values to store: fixed ones for single cases, strategies for round trips, and a bare schema."""

import contextlib
import dataclasses
import sqlite3

import aiosqlite
from hypothesis import strategies as st

from prsmd.domain.access import ApiKey
from prsmd.domain.deployment import (
    Deployment,
    FieldChange,
    Recommendation,
    Revision,
    ScalingStrategy,
)
from prsmd.domain.events import AuditRecord, Event, Severity
from prsmd.domain.replica import (
    Endpoint,
    ExitCause,
    ExitKind,
    Placement,
    Replica,
    ReplicaState,
)
from prsmd.domain.rollout import (
    Gate,
    HeaderRule,
    Rollout,
    RolloutOptions,
    RolloutPhase,
    RolloutStrategy,
)
from prsmd.domain.spec import Metadata, Resources, Scaling, Security, Serving, Spec
from prsmd.store import deployments, revisions
from prsmd.store.idempotency import Remembered
from prsmd.store.migrate import known_migrations, migrate
from prsmd.store.specs import spec_hash

SPEC = Spec(
    image="registry.local/legal:2",
    model_type="text",
    resources=Resources(cpu_millis=2000, memory_bytes=8 * 2**30),
)
DEPLOYMENT = Deployment(
    id="deploy_1",
    organization="acme",
    model_id="custom_legal",
    model_name="legal",
    revision=1,
    asked_replicas=1,
    created_at=100.0,
    updated_at=100.0,
)
REVISION = Revision(
    deployment_id="deploy_1",
    number=1,
    spec=SPEC,
    spec_hash=spec_hash(SPEC),
    created_at=100.0,
    created_by="key_1",
)
REPLICA = Replica(
    id="1-r1-s0-a",
    deployment_id="deploy_1",
    organization="acme",
    revision=1,
    slot=0,
    state=ReplicaState.PENDING,
    placement=Placement(node="local", cpu_millis=2000, memory_bytes=2**30),
    created_at=100.0,
)
ROLLOUT = Rollout(
    deployment_id="deploy_1",
    number=1,
    from_revision=1,
    to_revision=2,
    options=RolloutOptions(),
    started_at=100.0,
    started_by="key_1",
)
REMEMBERED = Remembered(
    principal="key_1",
    key="once",
    fingerprint="f",
    status=202,
    body="{}",
    created_at=100.0,
    grounds="{}",
)
EVENT = Event(
    deployment_id="deploy_1", organization="acme", reason="Started", message="it runs", at=1.0
)


def deployment(number: int, **changes) -> Deployment:
    """Return a deployment that differs from others in everything unique."""
    named = {"id": f"deploy_{number}", "model_id": f"custom_m{number}", "model_name": f"m{number}"}
    return dataclasses.replace(DEPLOYMENT, **{**named, **changes})


@contextlib.asynccontextmanager
async def bare_schema():
    """Open a database in memory with the current schema and nothing in it."""
    async with aiosqlite.connect(":memory:", isolation_level=None) as tx:
        tx.row_factory = sqlite3.Row
        await tx.execute_fetchall("PRAGMA foreign_keys = ON")
        await tx.execute_fetchall("PRAGMA trusted_schema = OFF")
        await migrate(tx, known_migrations())
        yield tx


@contextlib.asynccontextmanager
async def one_deployment():
    """Open a database in memory that holds DEPLOYMENT and REVISION."""
    async with bare_schema() as tx:
        await deployments.add(tx, DEPLOYMENT)
        await revisions.add(tx, REVISION)
        yield tx


@contextlib.asynccontextmanager
async def two_revisions():
    """Open a database in memory that holds DEPLOYMENT with revisions 1 and 2."""
    async with one_deployment() as tx:
        await revisions.add(tx, dataclasses.replace(REVISION, number=2))
        yield tx


words = st.text(max_size=12)
times = st.floats(min_value=0, max_value=1e11)
counts = st.integers(min_value=0, max_value=2**53)
some_words = st.lists(words, max_size=3).map(tuple)
json_values = st.recursive(
    st.none() | st.booleans() | counts | times | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)

specs = st.builds(
    Spec,
    image=words,
    model_type=words,
    resources=st.builds(
        Resources,
        cpu_millis=counts,
        memory_bytes=counts,
        gpu_millis=counts,
        gpu_memory_bytes=st.none() | counts,
    ),
    scaling=st.builds(
        Scaling,
        min_replicas=counts,
        max_replicas=counts,
        target_utilization=st.floats(0, 1),
        scale_to_zero_after_seconds=times | counts,
    ),
    serving=st.builds(
        Serving,
        protocol=words,
        port=counts,
        predict_path=st.none() | words,
        health_path=st.none() | words,
        startup_timeout_seconds=times,
        request_timeout_seconds=times | counts,
        max_concurrency=counts,
        queue_depth=counts,
    ),
    security=st.builds(Security, run_as_user=counts, writable_root=st.booleans()),
    metadata=st.builds(
        Metadata, version=words, description=words, capabilities=some_words, domains=some_words
    ),
    environment=st.dictionaries(words, words, max_size=4),
    command=some_words,
    args=some_words,
)
recommendations = st.builds(
    Recommendation,
    replicas=counts,
    reasons=some_words,
    utilization=st.none() | st.floats(0, 5),
    at=times,
)
deployments_values = st.builds(
    Deployment,
    id=words,
    organization=words,
    model_id=words,
    model_name=words,
    revision=st.integers(1, 2**31),
    asked_replicas=counts,
    created_at=times,
    updated_at=times,
    scaling_strategy=st.sampled_from(ScalingStrategy),
    recommendation=st.none() | recommendations,
    deleting=st.booleans(),
    gradual_level=st.none() | counts,
    stable_revision=st.none() | st.integers(1, 2**31),
)
revisions_values = st.builds(
    Revision,
    deployment_id=st.just("deploy_1"),
    number=st.integers(2, 2**31),
    spec=specs,
    spec_hash=words,
    created_at=times,
    created_by=words,
    image_digest=st.none() | words,
    good_at=st.none() | times,
    diff=st.lists(
        st.builds(FieldChange, field=words, before=json_values, after=json_values), max_size=3
    ).map(tuple),
)
percents = st.integers(0, 100)
rollouts_values = st.builds(
    Rollout,
    deployment_id=st.just("deploy_1"),
    number=st.integers(1, 2**31),
    from_revision=st.just(1),
    to_revision=st.just(2),
    options=st.builds(
        RolloutOptions,
        strategy=st.sampled_from(RolloutStrategy),
        max_surge=st.none() | counts,
        min_ready_seconds=times,
        steps=st.lists(percents, max_size=4).map(tuple),
        bake_seconds=times | counts,
        header=st.none() | st.builds(HeaderRule, name=words, value=words),
        sticky=st.booleans(),
        shadow_percent=percents,
        gate=st.builds(
            Gate, max_error_rate=st.floats(0, 1), max_latency_ratio=times, min_requests=counts
        ),
        promote_by_hand=st.booleans(),
    ),
    started_at=times,
    started_by=words,
    phase=st.sampled_from(RolloutPhase),
    prepared=st.booleans(),
    trouble=st.none() | words,
    base=st.none() | counts,
    step=counts,
    step_since=st.none() | times,
    paused=st.booleans(),
    weight=st.none() | percents,
    finished_at=st.none() | times,
    outcome=words,
    evidence=some_words,
)
remembered_values = st.builds(
    Remembered,
    principal=words,
    key=words,
    fingerprint=words,
    status=st.integers(200, 299),
    body=words,
    created_at=times,
    headers=st.dictionaries(words, words, max_size=2),
)
replicas_values = st.builds(
    Replica,
    id=words,
    deployment_id=st.just("deploy_1"),
    organization=words,
    revision=st.just(1),
    slot=counts,
    state=st.sampled_from(ReplicaState),
    placement=st.builds(
        Placement,
        node=words,
        cpu_millis=counts,
        memory_bytes=counts,
        gpu_uuids=some_words,
        gpu_millis=counts,
        gpu_memory_bytes=counts,
    ),
    created_at=times,
    container_id=st.none() | words,
    endpoint=st.none() | st.builds(Endpoint, host=words, port=st.integers(1, 65535)),
    started_at=st.none() | times,
    ready_at=st.none() | times,
    draining_since=st.none() | times,
    finished_at=st.none() | times,
    exit=st.none()
    | st.builds(
        ExitCause,
        kind=st.sampled_from(ExitKind),
        message=words,
        exit_code=st.none() | st.integers(-255, 255),
        log_tail=some_words,
    ),
)
events_values = st.builds(
    Event,
    deployment_id=st.just("deploy_1"),
    organization=words,
    reason=words,
    message=words,
    at=times,
    severity=st.sampled_from(Severity),
    replica_id=st.none() | words,
)
audit_values = st.builds(
    AuditRecord,
    at=times,
    principal=words,
    organization=words,
    action=words,
    subject=words,
    outcome=words,
    request_id=words,
    details=st.dictionaries(words, words | counts | st.booleans() | st.none(), max_size=3),
)
keys_values = st.builds(
    ApiKey,
    id=words,
    organization=words,
    role=words,
    name=words,
    digest=st.binary(max_size=32),
    created_at=times,
    expires_at=st.none() | times,
    revoked_at=st.none() | times,
)
