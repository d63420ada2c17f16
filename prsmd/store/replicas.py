"""Replicas: one row for each container run, written before its container exists.

States only move forward; this is the last place that can refuse a step back.
"""

import dataclasses
import json
import sqlite3
from collections.abc import Sequence

from pydantic import TypeAdapter

from prsmd.domain.errors import NotFoundError
from prsmd.domain.replica import (
    TRANSITIONS,
    Endpoint,
    ExitCause,
    Placement,
    Replica,
    ReplicaState,
)
from prsmd.domain.truncation import MOST_TAIL_BYTES, truncated, truncated_tail

from .connection import Tx
from .decoding import decodes, decoding
from .errors import IllegalTransitionError
from .rows import change, many, one

ENDED_PER_SLOT = 8  # of the replicas that ended, how many are still looked at
_PLACEMENT = TypeAdapter(Placement)
_EXIT = TypeAdapter(ExitCause)


async def add(tx: Tx, replica: Replica) -> None:
    """Store a new replica with its reservation.

    Raises:
        sqlite3.IntegrityError: the id is taken, or there is no such deployment and revision.
    """
    await change(
        tx,
        "INSERT INTO replicas (id, deployment_id, organization, revision, slot, state, placement, "
        "container_id, endpoint_host, endpoint_port, created_at, started_at, ready_at, "
        "draining_since, finished_at, exit) "
        "VALUES (:id, :deployment_id, :organization, :revision, :slot, :state, :placement, "
        ":container_id, :endpoint_host, :endpoint_port, :created_at, :started_at, :ready_at, "
        ":draining_since, :finished_at, :exit)",
        _to_row(replica),
    )


async def save(tx: Tx, replica: Replica) -> None:
    """Write the whole row of a replica that is stored and has not ended.

    Raises:
        NotFoundError: it is not stored (its deployment may be gone).
        IllegalTransitionError: it has ended, or its state cannot follow the stored one.
    """
    row = await one(tx, "SELECT state FROM replicas WHERE id = ?", (replica.id,))
    if row is None:
        raise NotFoundError(f"There is no replica {replica.id}.")
    _refuse_step_back(replica, _state(row))
    await change(
        tx,
        "UPDATE replicas SET deployment_id = :deployment_id, organization = :organization, "
        "revision = :revision, slot = :slot, state = :state, placement = :placement, "
        "container_id = :container_id, endpoint_host = :endpoint_host, "
        "endpoint_port = :endpoint_port, created_at = :created_at, started_at = :started_at, "
        "ready_at = :ready_at, draining_since = :draining_since, finished_at = :finished_at, "
        "exit = :exit WHERE id = :id",
        _to_row(replica),
    )


async def get(tx: Tx, replica_id: str) -> Replica | None:
    """Return the replica of this id, or None."""
    row = await one(tx, "SELECT * FROM replicas WHERE id = ?", (replica_id,))
    return None if row is None else _from_row(row)


async def list_current(
    tx: Tx, ended_per_slot: int = ENDED_PER_SLOT, of: Sequence[str] | None = None
) -> list[Replica]:
    """Return every active replica and the newest ended ones of each slot, oldest first.

    `of`: only those of these deployments.
    """
    own = "" if of is None else "deployment_id IN (SELECT value FROM json_each(:of)) AND "
    rows = await many(
        tx,
        f"SELECT * FROM replicas WHERE {own}(state NOT IN ('stopped', 'failed') OR id IN ("  # noqa: S608 - one of two texts
        "  SELECT id FROM (SELECT id, row_number() OVER ("
        "    PARTITION BY deployment_id, slot ORDER BY created_at DESC, id DESC) AS age"
        f"    FROM replicas WHERE {own}state IN ('stopped', 'failed')) WHERE age <= :most"
        ")) ORDER BY created_at, id",
        {"most": ended_per_slot, "of": json.dumps(list(of or ()))},
    )
    return [_from_row(row) for row in rows]


async def list_active(tx: Tx, organization: str) -> list[Replica]:
    """Return an organization's replicas that hold their reservation, oldest first."""
    rows = await many(
        tx,
        "SELECT * FROM replicas WHERE organization = ? AND state NOT IN ('stopped', 'failed') "
        "ORDER BY created_at, id",
        (organization,),
    )
    return [_from_row(row) for row in rows]


async def list_for(tx: Tx, deployment_id: str, limit: int = 100) -> list[Replica]:
    """Return a deployment's newest replicas of any state, newest first."""
    rows = await many(
        tx,
        "SELECT * FROM replicas WHERE deployment_id = ? ORDER BY created_at DESC, id DESC LIMIT ?",
        (deployment_id, limit),
    )
    return [_from_row(row) for row in rows]


async def bound_exits(tx: Tx) -> None:
    """Bound the causes and log lines that an older release stored whole; part of migration 17."""
    large = await many(tx, "SELECT id FROM replicas WHERE length(exit) > ?", (MOST_TAIL_BYTES,))
    for [replica_id] in large:  # one at a time: each may hold a megabyte
        [[cause]] = await many(tx, "SELECT exit FROM replicas WHERE id = ?", (replica_id,))
        with decoding("replicas.exit"):
            bounded = _encode_exit(_EXIT.validate_json(cause))
        await change(tx, "UPDATE replicas SET exit = ? WHERE id = ?", (bounded, replica_id))


async def prune(tx: Tx, keep_per_deployment: int) -> int:
    """Forget each deployment's ended replicas but the newest; return how many went."""
    return await change(
        tx,
        "DELETE FROM replicas WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER ("
        "PARTITION BY deployment_id ORDER BY created_at DESC, id DESC) AS age "
        "FROM replicas WHERE state IN ('stopped', 'failed')) WHERE age > ?)",
        (keep_per_deployment,),
    )


@decodes("replicas")
def _state(row: sqlite3.Row) -> ReplicaState:
    return ReplicaState(row["state"])


def _encode_exit(cause: ExitCause) -> str:
    bounded = dataclasses.replace(
        cause, message=truncated(cause.message), log_tail=truncated_tail(cause.log_tail)
    )
    return _EXIT.dump_json(bounded).decode()


def _refuse_step_back(replica: Replica, stored: ReplicaState) -> None:
    following = TRANSITIONS[stored]
    if not following:
        raise IllegalTransitionError(f"Replica {replica.id} has ended ({stored}).")
    if replica.state != stored and replica.state not in following:
        raise IllegalTransitionError(
            f"Replica {replica.id} cannot go from {stored} to {replica.state}."
        )


def _to_row(replica: Replica) -> dict[str, object]:
    endpoint, cause = replica.endpoint, replica.exit
    return {
        "id": replica.id,
        "deployment_id": replica.deployment_id,
        "organization": replica.organization,
        "revision": replica.revision,
        "slot": replica.slot,
        "state": replica.state.value,
        "placement": _PLACEMENT.dump_json(replica.placement).decode(),
        "container_id": replica.container_id,
        "endpoint_host": endpoint and endpoint.host,
        "endpoint_port": endpoint and endpoint.port,
        "created_at": replica.created_at,
        "started_at": replica.started_at,
        "ready_at": replica.ready_at,
        "draining_since": replica.draining_since,
        "finished_at": replica.finished_at,
        "exit": cause and _encode_exit(cause),
    }


@decodes("replicas")
def _from_row(row: sqlite3.Row) -> Replica:
    host = row["endpoint_host"]
    return Replica(
        id=row["id"],
        deployment_id=row["deployment_id"],
        organization=row["organization"],
        revision=row["revision"],
        slot=row["slot"],
        state=ReplicaState(row["state"]),
        placement=_PLACEMENT.validate_json(row["placement"]),
        container_id=row["container_id"],
        endpoint=None if host is None else Endpoint(host, row["endpoint_port"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        ready_at=row["ready_at"],
        draining_since=row["draining_since"],
        finished_at=row["finished_at"],
        exit=None if row["exit"] is None else _EXIT.validate_json(row["exit"]),
    )
