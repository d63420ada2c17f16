"""Reads everything that is desired from the store, as the decisions take it."""

from prsmd.core.plan import DesiredDeployment
from prsmd.domain.replica import Replica
from prsmd.store import deployments, replicas, revisions
from prsmd.store.db import Tx


async def load_desired(tx: Tx) -> list[DesiredDeployment]:
    """Return every deployment with its current revision and the replicas that matter."""
    rows = await current_replicas(tx)
    desired = []
    for deployment in await deployments.list_all(tx):
        revision = await revisions.get(tx, deployment.id, deployment.revision)
        if revision is not None:
            mine = tuple(rows.get(deployment.id, ()))
            desired.append(
                DesiredDeployment(deployment=deployment, revision=revision, replicas=mine)
            )
    return desired


async def current_replicas(tx: Tx) -> dict[str, list[Replica]]:
    """Return the replicas that matter by deployment, however many have failed since they began.

    Active ones are never left out: a page of the newest rows would be all failures one day.
    """
    rows: dict[str, list[Replica]] = {}
    for replica in await replicas.list_current(tx):
        rows.setdefault(replica.deployment_id, []).append(replica)
    return rows
