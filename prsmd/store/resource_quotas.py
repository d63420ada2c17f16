"""What organizations may have at most, and what they have, as one transaction sees both."""

from collections.abc import Iterable, Mapping
from operator import index

from prsmd.domain.resource_quota import Dimension, Limit
from prsmd.domain.spec import Needs, Resources, Scaling

from .connection import Tx
from .decoding import decoding
from .rows import change, many

_UNDER_WAY = "('preparing', 'trying', 'replacing')"
_COUNTED: Mapping[Dimension, str] = {
    Dimension.MODELS: "SELECT count(*) FROM deployments WHERE organization = :organization",
    Dimension.KEYS: "SELECT count(*) FROM api_keys WHERE organization = :organization "
    "AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :now)",
    Dimension.MEMBERS: "SELECT count(*) FROM members WHERE organization = :organization",
    Dimension.ROLES: "SELECT count(*) FROM roles WHERE organization = :organization",
    Dimension.SECRETS: "SELECT count(*) FROM secrets WHERE organization = :organization",
    Dimension.REGISTRIES: "SELECT count(*) FROM registries WHERE organization = :organization",
    Dimension.SHARES: "SELECT count(*) FROM shares WHERE organization = :organization",
    Dimension.IMAGE_BYTES: "SELECT coalesce(sum(size), 0) FROM (SELECT max(size_bytes) AS size "
    "FROM images WHERE organization = :organization AND id <> '' GROUP BY id)",
    Dimension.ANSWER_BYTES: "SELECT coalesce(sum(bytes), 0) FROM answer_bytes "
    "WHERE organization = :organization",
}


async def set_defaults(tx: Tx, hard: Mapping[Dimension, int | None]) -> None:
    """Store what holds where no administrator set anything; None: unlimited."""
    await change(tx, "DELETE FROM default_quotas")
    for dimension, amount in hard.items():
        await change(tx, "INSERT INTO default_quotas VALUES (?, ?)", (dimension.value, amount))


async def limits(tx: Tx, organization: str) -> dict[Dimension, Limit]:
    """Return an organization's limits; what is absent is unlimited."""
    rows = await many(
        tx,
        "SELECT dimension, hard, 1 AS is_default FROM default_quotas WHERE dimension NOT IN "
        "(SELECT dimension FROM organization_quotas WHERE organization = :organization) "
        "UNION ALL SELECT dimension, hard, 0 FROM organization_quotas "
        "WHERE organization = :organization",
        {"organization": organization},
    )
    known = {one.value for one in Dimension}  # another release's file may have more
    return {
        Dimension(row["dimension"]): Limit(row["hard"], is_default=bool(row["is_default"]))
        for row in rows
        if row["dimension"] in known
    }


async def put(tx: Tx, organization: str, dimension: Dimension, hard: int | None) -> None:
    """Set one limit of an organization; None: unlimited."""
    await change(
        tx,
        "INSERT INTO organization_quotas VALUES (?, ?, ?) "
        "ON CONFLICT (organization, dimension) DO UPDATE SET hard = excluded.hard",
        (organization, dimension.value, hard),
    )


async def reset(tx: Tx, organization: str, dimension: Dimension) -> None:
    """Let the default hold for one dimension again."""
    await change(
        tx,
        "DELETE FROM organization_quotas WHERE organization = ? AND dimension = ?",
        (organization, dimension.value),
    )


async def counted(
    tx: Tx, organization: str, dimensions: Iterable[Dimension], now: float
) -> dict[Dimension, int]:
    """Return how many there are of each dimension that is counted in rows, or their bytes.

    `now` (seconds since the epoch) tells which keys have expired.
    """
    found = {}
    for dimension in dimensions:
        if dimension in _COUNTED:
            of = {"organization": organization, "now": now}
            [[amount]] = await many(tx, _COUNTED[dimension], of)
            found[dimension] = int(amount)
    return found


async def needs(tx: Tx, organization: str) -> dict[str, tuple[int, tuple[Needs, ...]]]:
    """Return by deployment id how many replicas each model wants, and what its revisions need.

    The last one is the wanted revision; while a rollout is under way, the one that it came from
    stands before it.
    Models that are being deleted want nothing more.
    """
    query = (
        "SELECT d.id, r.cpu_millis, r.memory_bytes, r.gpu_millis, r.min_replicas, r.max_replicas, "  # noqa: S608 - a constant
        "coalesce(json_extract(d.recommendation, '$.replicas'), d.asked_replicas) AS wanted "
        "FROM deployments d JOIN revisions r ON r.deployment_id = d.id AND (r.number = d.revision "
        "OR r.number IN (SELECT from_revision FROM rollouts WHERE deployment_id = d.id "
        f"AND phase IN {_UNDER_WAY})) WHERE d.organization = ? AND d.deleting = 0 "
        "ORDER BY d.id, r.number = d.revision"
    )
    with decoding("deployments.recommendation"):
        rows = await many(tx, query, (organization,))
    found: dict[str, tuple[int, tuple[Needs, ...]]] = {}
    for row in rows:
        one = Needs(
            resources=Resources(
                cpu_millis=row["cpu_millis"],
                memory_bytes=row["memory_bytes"],
                gpu_millis=row["gpu_millis"],
            ),
            scaling=Scaling(min_replicas=row["min_replicas"], max_replicas=row["max_replicas"]),
        )
        with decoding("deployments.recommendation"):
            asked = index(row["wanted"])
        wanted, others = found.get(row["id"], (asked, ()))
        found[row["id"]] = wanted, (*others, one)
    return found
