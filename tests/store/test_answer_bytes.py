"""What is remembered for Idempotency-Keys counts for whose callers asked, by its bytes."""

import pytest

from prsmd.domain.access import ROLES, Principal
from prsmd.domain.errors import ResourceQuotaExceededError
from prsmd.domain.resource_quota import Dimension
from prsmd.engine.quota_ledger import used
from prsmd.service.idempotency import Answer, Once
from prsmd.service.organizations import ensure
from prsmd.store import idempotency, resource_quotas

NAME = Dimension.ANSWER_BYTES


def caller(organization):
    return Principal(
        id=f"key:{organization}",
        organization=organization,
        role="owner",
        permissions=ROLES["owner"],
    )


async def remember(database, key, size, organization="acme"):
    once = Once(lambda _: Answer(body={"é": "x" * size}), key, "f")
    await database.write(lambda tx: once.remember(tx, caller(organization), None))


async def counted(database, organization="acme"):
    async with database.read() as tx:
        return (await used(tx, organization, (NAME,)))[NAME]


async def stored(database):
    """Return what is really there, counted anew."""
    async with database.read() as tx:
        rows = await tx.execute_fetchall("SELECT principal, key FROM remembered_answers")
        found = [await idempotency.find(tx, row["principal"], row["key"]) for row in rows]
    return sum(one.size_bytes for one in found)


async def test_the_sum_is_what_is_there_as_answers_come_and_go(database):
    for n in range(5):
        await remember(database, f"k{n}", 100 * n)
    assert await counted(database) == await stored(database) > 5 * 1024
    assert await counted(database, "rival") == 0
    await database.write(lambda tx: idempotency.prune(tx, 1e12))
    assert await counted(database) == await stored(database) == 0


async def test_what_would_be_too_much_is_refused_as_a_whole_and_nothing_without_a_key(database):
    await ensure(database, ["acme", "rival"])
    await database.write(lambda tx: resource_quotas.put(tx, "acme", NAME, 10_000))
    await remember(database, "k", 3000)
    with pytest.raises(ResourceQuotaExceededError, match="send no Idempotency-Key"):
        await remember(database, "l", 6000)
    await remember(database, None, 6000)
    await remember(database, "l", 6000, "rival")
    await remember(database, "m", 100)
