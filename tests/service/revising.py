"""Updates, rollbacks and rollouts as the service tests ask for them, and the rows that come of it.

The loop is not run: what a rollout has reached is written into its row, as the loop would.
"""

import dataclasses
import time
from typing import Any

from prsmd.api.update_schemas import spec_of
from prsmd.domain.deployment import Deployment, Revision
from prsmd.domain.replica import Placement, Replica, ReplicaState
from prsmd.domain.rollout import Rollout, RolloutOptions, RolloutPhase, RolloutStrategy
from prsmd.service.revisions import Updated
from prsmd.service.updates import RollbackRequest, UpdateRequest
from prsmd.store import deployments, replicas, revisions, rollouts
from prsmd.store.db import Tx
from tests.engine.harness import Life, caller

DIGEST = "sha256:" + "1" * 64
NEW_IMAGE = {"deployment_config": {"container_image": "models/legal:2"}}
MORE_CPU = {"deployment_config": {"resource_requirements": {"cpu": "600m"}}}
MORE_REPLICAS = {"deployment_config": {"scaling": {"max_replicas": 9}}}


def canary(*steps: int) -> RolloutOptions:
    return RolloutOptions(strategy=RolloutStrategy.CANARY, steps=steps or (10, 50))


@dataclasses.dataclass(frozen=True)
class Desk:
    """One model whose first revision has been good, and the requests that people make of it."""

    life: Life
    id: str

    async def update(
        self, patch: dict[str, Any], *, role: str = "operator", **options: Any
    ) -> Updated:
        request = UpdateRequest(patch=patch, read=spec_of, **options)
        return await self.life.services.revisions.update(caller(role), "legal", request)

    async def rollback(self, *, role: str = "operator", **request: Any) -> Updated:
        service = self.life.services.revisions
        return await service.rollback(caller(role), "legal", RollbackRequest(**request))

    async def deployment(self) -> Deployment:
        async with self.life.database.read() as tx:
            found = await deployments.get(tx, self.id)
        assert found is not None
        return found

    async def history(self) -> list[Revision]:
        async with self.life.database.read() as tx:
            return await revisions.list_for(tx, self.id)

    async def rollouts(self) -> list[Rollout]:
        """Oldest first."""
        async with self.life.database.read() as tx:
            return (await rollouts.list_for(tx, self.id))[::-1]

    async def latest(self) -> Rollout:
        return (await self.rollouts())[-1]

    async def reach(self, phase: RolloutPhase, **changes: Any) -> Rollout:
        """Let the latest rollout be as far as this, as the loop would write it."""
        before = await self.latest()
        after = dataclasses.replace(before, phase=phase, prepared=True, **changes)

        async def write(tx: Tx) -> None:
            assert await rollouts.replace(tx, before, after)
            if phase is RolloutPhase.COMPLETED:
                await revisions.note_good(tx, self.id, after.to_revision, time.time())
                await deployments.set_stable(tx, self.id, after.to_revision)
            if phase in {RolloutPhase.ROLLED_BACK, RolloutPhase.ABORTED}:
                await deployments.set_revision(tx, self.id, after.from_revision, time.time())

        await self.life.database.write(write)
        return after

    async def complete(self) -> None:
        await self.reach(RolloutPhase.COMPLETED, finished_at=time.time(), outcome="done")

    async def pin(self, number: int, digest: str = DIGEST) -> None:
        await self.life.database.write(lambda tx: revisions.set_digest(tx, self.id, number, digest))


async def put_replica(
    life: Life,
    deployment: str,
    gpu: str,
    slot: int = 0,
    *,
    revision: int = 1,
    state: ReplicaState = ReplicaState.RUNNING,
) -> None:
    """Let a deployment have a replica that holds a whole GPU, and runs unless told otherwise."""
    placed = Placement(
        node="rack-7", cpu_millis=500, memory_bytes=2**28, gpu_uuids=(gpu,), gpu_millis=1000
    )
    replica = Replica(
        id=f"{deployment}-r{revision}-s{slot}",
        deployment_id=deployment,
        organization="default",
        revision=revision,
        slot=slot,
        state=state,
        placement=placed,
        created_at=time.time(),
    )
    await life.database.write(lambda tx: replicas.add(tx, replica))


async def desk(life: Life, **scaling: Any) -> Desk:
    """Deploy, and note the first revision as good, as the loop would once it is ready."""
    opened = Desk(life, await life.deploy(**scaling))
    await opened.pin(1)

    async def write(tx: Tx) -> None:
        await revisions.note_good(tx, opened.id, 1, time.time())
        await deployments.set_stable(tx, opened.id, 1)

    await life.database.write(write)
    return opened
