"""Reads everything that is desired from the store, as the decisions take it."""

import dataclasses
from collections.abc import Sequence

from prsmd.core.plan import DesiredDeployment
from prsmd.domain.deployment import Deployment
from prsmd.domain.replica import Replica
from prsmd.store import deployments, resource_quotas, revisions, rollouts
from prsmd.store import replicas as replica_rows
from prsmd.store.db import Tx
from prsmd.store.errors import DamagedRowError


async def load_desired(tx: Tx) -> list[DesiredDeployment]:
    """Return every deployment with the revisions and the replicas that matter."""
    rows = await current_replicas(tx)
    known = await deployments.list_all(tx)
    owners = {deployment.organization for deployment in known}
    limits = {owner: await resource_quotas.limits(tx, owner) for owner in owners}
    found = [await desired_of(tx, each, rows.get(each.id, ())) for each in known]
    return [
        dataclasses.replace(item, limits=limits[item.deployment.organization]) for item in found
    ]


async def desired_of(
    tx: Tx, deployment: Deployment, replicas: Sequence[Replica]
) -> DesiredDeployment:
    """Return one deployment as the decisions take it.

    Raises:
        DamagedRowError: its revision is not stored; it always is, unless somebody removed it.
    """
    revision = await revisions.get(tx, deployment.id, deployment.revision)
    if revision is None:
        place = f"revision {deployment.revision} of {deployment.id}"
        raise DamagedRowError(f"deployments.revision says {place}, which revisions does not have")
    rollout = await rollouts.latest(tx, deployment.id)
    numbers = {replica.revision for replica in replicas}
    if deployment.stable_revision is not None:
        numbers.add(deployment.stable_revision)
    if rollout is not None and rollout.active:
        numbers.add(rollout.from_revision)
    others = [
        await revisions.get(tx, deployment.id, number)
        for number in sorted(numbers - {deployment.revision})
    ]
    return DesiredDeployment(
        deployment=deployment,
        revision=revision,
        replicas=tuple(replicas),
        others=tuple(one for one in others if one is not None),
        rollout=rollout,
    )


async def current_replicas(
    tx: Tx, deployment_ids: Sequence[str] | None = None
) -> dict[str, list[Replica]]:
    """Return the replicas that matter by deployment, however many have failed since they began.

    With ids, only those of these deployments. Active ones are never left out: a page of the newest
    rows would be all failures one day.
    """
    rows: dict[str, list[Replica]] = {}
    for replica in await replica_rows.list_current(tx, of=deployment_ids):
        rows.setdefault(replica.deployment_id, []).append(replica)
    return rows
