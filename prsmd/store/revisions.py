"""Revisions: the numbered, immutable specs of each deployment."""

import json
import sqlite3

from pydantic import TypeAdapter

from prsmd.domain.deployment import FieldChange, Revision

from . import specs
from .connection import Tx
from .decoding import decodes
from .rows import change, many, one

_DIFF = TypeAdapter(tuple[FieldChange, ...])


async def add(tx: Tx, revision: Revision) -> None:
    """Store a new revision of a deployment that is stored.

    Raises:
        sqlite3.IntegrityError: the number is taken, or there is no such deployment.
    """
    await change(
        tx,
        "INSERT INTO revisions "
        "(deployment_id, number, spec, spec_hash, image_digest, created_at, created_by, good_at, "
        "diff, cpu_millis, memory_bytes, gpu_millis, min_replicas, max_replicas, secret_names) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            revision.deployment_id,
            revision.number,
            specs.encode(revision.spec),
            revision.spec_hash,
            revision.image_digest,
            revision.created_at,
            revision.created_by,
            revision.good_at,
            _DIFF.dump_json(revision.diff).decode(),
            revision.spec.resources.cpu_millis,
            revision.spec.resources.memory_bytes,
            revision.spec.resources.gpu_millis,
            revision.spec.scaling.min_replicas,
            revision.spec.scaling.max_replicas,
            json.dumps(sorted({use.name for use in revision.spec.secrets.values()})),
        ),
    )


async def get(tx: Tx, deployment_id: str, number: int) -> Revision | None:
    """Return one revision, or None."""
    row = await one(
        tx,
        "SELECT * FROM revisions WHERE deployment_id = ? AND number = ?",
        (deployment_id, number),
    )
    return None if row is None else _from_row(row)


async def list_for(tx: Tx, deployment_id: str) -> list[Revision]:
    """Return a deployment's revisions, oldest first."""
    rows = await many(
        tx, "SELECT * FROM revisions WHERE deployment_id = ? ORDER BY number", (deployment_id,)
    )
    return [_from_row(row) for row in rows]


async def next_number(tx: Tx, deployment_id: str) -> int:
    """Return the number that the deployment's next revision gets; the first is 1."""
    [[number]] = await many(
        tx,
        "SELECT coalesce(max(number), 0) + 1 FROM revisions WHERE deployment_id = ?",
        (deployment_id,),
    )
    return int(number)


async def prune(tx: Tx, deployment_id: str, keep: int) -> int:
    """Forget a deployment's revisions but the newest `keep`; return how many went.

    Those stay that something needs: what is wanted, stable, run, or of the latest rollout.
    """
    return await change(
        tx,
        "DELETE FROM revisions WHERE deployment_id = :id AND number NOT IN "
        "(SELECT number FROM revisions WHERE deployment_id = :id ORDER BY number DESC LIMIT :keep) "
        "AND number NOT IN (SELECT revision FROM deployments WHERE id = :id UNION "
        "SELECT coalesce(stable_revision, 0) FROM deployments WHERE id = :id UNION "
        "SELECT revision FROM replicas WHERE deployment_id = :id "
        "AND state NOT IN ('stopped', 'failed') UNION "
        "SELECT from_revision FROM rollouts WHERE deployment_id = :id AND number = "
        "(SELECT max(number) FROM rollouts WHERE deployment_id = :id) UNION "
        "SELECT to_revision FROM rollouts WHERE deployment_id = :id AND number = "
        "(SELECT max(number) FROM rollouts WHERE deployment_id = :id))",
        {"id": deployment_id, "keep": keep},
    )


async def note_good(tx: Tx, deployment_id: str, number: int, now: float) -> bool:
    """Note when a revision was first good. Return False when it was before, or is not there."""
    return bool(
        await change(
            tx,
            "UPDATE revisions SET good_at = ? "
            "WHERE deployment_id = ? AND number = ? AND good_at IS NULL",
            (now, deployment_id, number),
        )
    )


async def set_digest(tx: Tx, deployment_id: str, number: int, digest: str) -> bool:
    """Note what the engine resolved the image to. Return False when there is no such revision."""
    return bool(
        await change(
            tx,
            "UPDATE revisions SET image_digest = ? WHERE deployment_id = ? AND number = ?",
            (digest, deployment_id, number),
        )
    )


@decodes("revisions")
def _from_row(row: sqlite3.Row) -> Revision:
    return Revision(
        deployment_id=row["deployment_id"],
        number=row["number"],
        spec=specs.decode(row["spec"]),
        spec_hash=row["spec_hash"],
        image_digest=row["image_digest"],
        created_at=row["created_at"],
        created_by=row["created_by"],
        good_at=row["good_at"],
        diff=_DIFF.validate_json(row["diff"]),
    )
