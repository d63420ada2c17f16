"""Who changes much holds up another one by one change: of shares, and of who may do what."""

import asyncio

import pytest

from prsmd.core.fair_queue import Asker
from prsmd.domain.access import Permission
from prsmd.engine.recorder import Recorder
from prsmd.service.directory import Directory
from prsmd.service.shares import ShareRequest, Shares
from prsmd.store import audit, deployments
from prsmd.store.asking import asking_for
from prsmd.store.db import Database
from tests.gateway.backends import until
from tests.service.identity import Office, caller, model_of

LOUD, QUIET = Asker("company", "loud"), Asker("rival", "quiet")


@pytest.fixture
async def office(tmp_path):
    database = await Database.open(tmp_path / "state")
    for organization in ("company", "rival"):
        model = model_of(organization, organization)
        await database.write(lambda tx, model=model: deployments.add(tx, model))
    yield await Office.open(database)
    await database.close()


def asked(who: Asker, work):
    """Begin work for a caller."""
    with asking_for(who):
        return asyncio.create_task(work)


class Blocked:
    """A database whose writer is busy until it is let go."""

    def __init__(self, database):
        self.database = database
        self.go_on, self.entered = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(database.write(self))

    async def __call__(self, tx):
        self.entered.set()
        await self.go_on.wait()

    @property
    def waiting(self):
        return len(self.database._writer._waiting)


async def test_changes_of_shares_are_written_in_turn_and_count_in_the_order_of_the_commits(office):
    shares = Shares(office.database, Recorder(office.database), office.lendings)
    wish = {"organizations": frozenset({"third"})}
    both = frozenset({Permission.MODELS_READ, Permission.MODELS_INFER})
    request = ShareRequest(permissions=both, **wish)
    own = (await shares.create(caller(), "deploy_company", request)).share.id
    other = (await shares.create(caller(), "deploy_rival", request)).share.id

    blocked = Blocked(office.database)
    await blocked.entered.wait()
    loud = [{"expires_at": 2e9 + number} for number in range(5)]
    tasks = []
    for changes in loud:
        work = shares.change(caller(), "deploy_company", own, changes)
        tasks.append(asked(LOUD, work))
        await until(lambda: blocked.waiting == len(tasks))
    work = shares.change(caller(), "deploy_rival", other, {"expires_at": 3e9})
    tasks.append(asked(QUIET, work))
    await until(lambda: blocked.waiting == 6)
    blocked.go_on.set()
    await asyncio.gather(blocked.task, *tasks)

    async with office.database.read() as tx:
        records, _ = await audit.page(tx, None, 6, 0)
    changed = [record.details["expires_at"] for record in reversed(records)]
    assert changed == [2e9, 3e9, *(one["expires_at"] for one in loud[1:])]
    borrower = caller("viewer", "third").principal
    [now] = office.lendings.of(borrower, "deploy_company")
    assert now.expires_at == 2e9 + 4


async def test_a_directory_takes_over_the_changes_of_callers_in_turn():
    directory, begun, go_on = Directory(), [], asyncio.Event()

    class Writes:
        async def write(self, transaction):
            await go_on.wait()
            return await transaction(None)

    def change(name):
        async def transaction(_):
            return name

        return directory.commit(Writes(), transaction, begun.append)

    tasks = [asked(LOUD, change(f"loud-{number}")) for number in range(5)]
    await asyncio.sleep(0)
    tasks.append(asked(QUIET, change("quiet")))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*tasks)
    assert begun == ["loud-0", "loud-1", "quiet", "loud-2", "loud-3", "loud-4"]
