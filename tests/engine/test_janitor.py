"""What is old is forgotten, and nothing else."""

import asyncio
import dataclasses
import time

from prsmd.engine import janitor
from prsmd.store import idempotency
from prsmd.store.idempotency import KEPT_SECONDS, Remembered
from tests.engine.harness import Life, finished


async def test_answers_older_than_a_day_are_swept(life: Life, monkeypatch) -> None:
    monkeypatch.setattr(janitor, "_PRUNE_SECONDS", 0.0)
    old = Remembered(
        principal="uid:0",
        key="old",
        fingerprint="f",
        status=202,
        body="{}",
        created_at=time.time() - KEPT_SECONDS - 1,
    )
    young = dataclasses.replace(old, key="young", created_at=old.created_at + 600)
    for answer in (old, young):
        await life.database.write(lambda tx, given=answer: idempotency.add(tx, given))

    async def stored() -> list[str]:
        async with life.database.read() as tx:
            rows = await tx.execute_fetchall("SELECT key FROM remembered_answers ORDER BY key")
        return [row["key"] for row in rows]

    assert await stored() == ["old", "young"]
    sweeping = asyncio.create_task(janitor.forget_old(life.database), name="forget-old")
    async with asyncio.timeout(20):
        while "old" in await stored():
            pass  # each look lets the janitor go on
    await finished(sweeping)
    assert await stored() == ["young"]
