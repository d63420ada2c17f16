"""Deployments: the desired state of each model that runs here."""

import json
import sqlite3
from collections.abc import Iterable, Sequence

from pydantic import TypeAdapter

from prsmd.domain.deployment import Deployment, Recommendation, ScalingStrategy
from prsmd.domain.errors import ConflictError, InvalidInputError

from .connection import Tx
from .decoding import decodes
from .rows import change, many, one

SORTABLE = ("created_at", "updated_at", "model_name", "model_id")
_ORDERS = {"asc": "ASC", "desc": "DESC"}
_RECOMMENDATION = TypeAdapter(Recommendation)


async def add(tx: Tx, deployment: Deployment) -> None:
    """Store a new deployment.

    Raises:
        ConflictError: the organization has a model of this name or id already.
    """
    try:
        await change(
            tx,
            "INSERT INTO deployments (id, organization, model_id, model_name, revision, "
            "asked_replicas, scaling_strategy, recommendation, deleting, created_at, updated_at, "
            "gradual_level, stable_revision) "
            "VALUES (:id, :organization, :model_id, :model_name, :revision, "
            ":asked_replicas, :scaling_strategy, :recommendation, :deleting, :created_at, "
            ":updated_at, :gradual_level, :stable_revision)",
            _to_row(deployment),
        )
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorname != "SQLITE_CONSTRAINT_UNIQUE":
            raise
        raise ConflictError(
            f"{deployment.organization} has a model {deployment.model_name} "
            f"({deployment.model_id}) already.",
            model_id=deployment.model_id,
            model_name=deployment.model_name,
        ) from error


async def get(tx: Tx, deployment_id: str, organization: str | None = None) -> Deployment | None:
    """Return the deployment of this id, or None; with an organization, only if it is its own.

    The same is done for another's as for one that never was.
    """
    row = await one(
        tx,
        "SELECT * FROM deployments WHERE id = :id "
        "AND (:organization IS NULL OR organization = :organization)",
        {"id": deployment_id, "organization": organization},
    )
    return None if row is None else _from_row(row)


async def find_model(tx: Tx, model: str, organization: str) -> Deployment | None:
    """Return the organization's deployment whose model id or else model name is `model`, or None.

    Among several the oldest wins.
    """
    row = await one(
        tx,
        "SELECT * FROM deployments WHERE (model_id = :model OR model_name = :model) "
        "AND organization = :organization "
        "ORDER BY model_id = :model DESC, created_at, id LIMIT 1",
        {"model": model, "organization": organization},
    )
    return None if row is None else _from_row(row)


async def list_named(tx: Tx, model: str) -> list[Deployment]:
    """Return the deployments of all organizations with this model id or model name."""
    rows = await many(
        tx,
        "SELECT * FROM deployments WHERE model_id = :model OR model_name = :model ORDER BY id",
        {"model": model},
    )
    return [_from_row(row) for row in rows]


async def list_all(tx: Tx) -> list[Deployment]:
    """Return all deployments, oldest first."""
    rows = await many(tx, "SELECT * FROM deployments ORDER BY created_at, id")
    return [_from_row(row) for row in rows]


async def list_of(tx: Tx, organization: str | None, also: Sequence[str] = ()) -> list[Deployment]:
    """Return an organization's deployments (None: all) and those of the ids `also`."""
    rows = await many(
        tx,
        f"SELECT * FROM deployments {_seen(organization, also)} ORDER BY created_at, id",  # noqa: S608 - text from this file
        {"organization": organization, "also": json.dumps(list(also))},
    )
    return [_from_row(row) for row in rows]


async def model_ids(tx: Tx, deployment_ids: Iterable[str]) -> dict[str, str]:
    """Return the model ids of those of these deployments that there are, by deployment id."""
    rows = await many(
        tx,
        "SELECT id, model_id FROM deployments WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(deployment_ids)),),
    )
    return {row["id"]: row["model_id"] for row in rows}


async def page(
    tx: Tx,
    organization: str | None,
    limit: int,
    offset: int,
    order: tuple[str, str] = ("created_at", "desc"),
    also: Sequence[str] = (),
) -> tuple[list[Deployment], int]:
    """Return one page of an organization's deployments (None: of all) and how many there are.

    `order` is a column and its direction. Those of the ids `also` belong to it, whosever they are.

    Raises:
        InvalidInputError: `sort_by` is not in SORTABLE, or `sort_order` is not asc or desc.
    """
    sort_by, sort_order = order
    if sort_by not in SORTABLE:
        raise InvalidInputError.field("sort_by", f"must be one of {', '.join(SORTABLE)}", sort_by)
    if sort_order not in _ORDERS:
        raise InvalidInputError.field("sort_order", "must be asc or desc", sort_order)
    direction, seen = _ORDERS[sort_order], _seen(organization, also)
    of = {
        "organization": organization,
        "also": json.dumps(list(also)),
        "limit": limit,
        "offset": offset,
    }
    rows = await many(
        tx,
        f"SELECT * FROM deployments {seen} "  # noqa: S608 - both names come from the lists above
        f"ORDER BY {sort_by} {direction}, id {direction} LIMIT :limit OFFSET :offset",
        of,
    )
    [[total]] = await many(tx, f"SELECT count(*) FROM deployments {seen}", of)  # noqa: S608 - as above
    return [_from_row(row) for row in rows], total


async def set_asked(
    tx: Tx,
    deployment_id: str,
    asked_replicas: int,
    strategy: ScalingStrategy,
    now: float,
    gradual_level: int | None = None,
) -> bool:
    """Store the count that a person asked for and forget what the autoscaler thought.

    `gradual_level` is how far gradual scaling may go at first. Return False when there is no such
    deployment.
    """
    return bool(
        await change(
            tx,
            "UPDATE deployments SET asked_replicas = ?, scaling_strategy = ?, updated_at = ?, "
            "gradual_level = ?, recommendation = NULL WHERE id = ?",
            (asked_replicas, strategy.value, now, gradual_level, deployment_id),
        )
    )


async def set_gradual_level(tx: Tx, deployment_id: str, replicas: int) -> bool:
    """Store how far gradual scaling may go by now. False: there is no such deployment."""
    return bool(
        await change(
            tx, "UPDATE deployments SET gradual_level = ? WHERE id = ?", (replicas, deployment_id)
        )
    )


async def set_recommendation(tx: Tx, deployment_id: str, recommendation: Recommendation) -> bool:
    """Store what the autoscaler thinks. Return False when there is no such deployment."""
    return bool(
        await change(
            tx,
            "UPDATE deployments SET recommendation = ? WHERE id = ?",
            (_RECOMMENDATION.dump_json(recommendation).decode(), deployment_id),
        )
    )


async def set_revision(tx: Tx, deployment_id: str, revision: int, now: float) -> bool:
    """Store which revision is wanted. Return False when there is no such deployment."""
    return bool(
        await change(
            tx,
            "UPDATE deployments SET revision = ?, updated_at = ? WHERE id = ?",
            (revision, now, deployment_id),
        )
    )


async def set_stable(tx: Tx, deployment_id: str, revision: int) -> bool:
    """Store which revision was last good. Return False when there is no such deployment."""
    return bool(
        await change(
            tx,
            "UPDATE deployments SET stable_revision = ? WHERE id = ?",
            (revision, deployment_id),
        )
    )


async def mark_deleting(tx: Tx, deployment_id: str, now: float) -> bool:
    """Note that the deployment is to go. Return False when there is no such deployment."""
    return bool(
        await change(
            tx,
            "UPDATE deployments SET deleting = 1, updated_at = ? WHERE id = ?",
            (now, deployment_id),
        )
    )


async def remove(tx: Tx, deployment_id: str) -> bool:
    """Forget the deployment with its revisions, replicas and events. False: there was none."""
    return bool(await change(tx, "DELETE FROM deployments WHERE id = ?", (deployment_id,)))


def _seen(organization: str | None, also: Sequence[str]) -> str:
    """Return the condition for an organization's deployments (None: all) and those of `also`."""
    if organization is None:
        return ""
    lent = " OR id IN (SELECT value FROM json_each(:also))" if also else ""
    return f"WHERE organization = :organization{lent}"


def _to_row(deployment: Deployment) -> dict[str, object]:
    recommendation = deployment.recommendation
    return {
        "id": deployment.id,
        "organization": deployment.organization,
        "model_id": deployment.model_id,
        "model_name": deployment.model_name,
        "revision": deployment.revision,
        "asked_replicas": deployment.asked_replicas,
        "scaling_strategy": deployment.scaling_strategy.value,
        "recommendation": recommendation and _RECOMMENDATION.dump_json(recommendation).decode(),
        "deleting": int(deployment.deleting),
        "created_at": deployment.created_at,
        "updated_at": deployment.updated_at,
        "gradual_level": deployment.gradual_level,
        "stable_revision": deployment.stable_revision,
    }


@decodes("deployments")
def _from_row(row: sqlite3.Row) -> Deployment:
    return Deployment(
        id=row["id"],
        organization=row["organization"],
        model_id=row["model_id"],
        model_name=row["model_name"],
        revision=row["revision"],
        asked_replicas=row["asked_replicas"],
        scaling_strategy=ScalingStrategy(row["scaling_strategy"]),
        recommendation=_recommendation(row["recommendation"]),
        deleting=bool(row["deleting"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        gradual_level=row["gradual_level"],
        stable_revision=row["stable_revision"],
    )


def _recommendation(text: str | None) -> Recommendation | None:
    return None if text is None else _RECOMMENDATION.validate_json(text)
