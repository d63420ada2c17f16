"""A page of a list costs what is on it, however much more there is."""

import contextlib

import pytest

from prsmd.domain.access import Organization, Permission
from prsmd.domain.deployment import Deployment
from prsmd.service.keys import KeyRequest, Keys
from prsmd.service.members import BindingWish, Members, MemberWish
from prsmd.service.organizations import Organizations
from prsmd.service.registrar import Registrar
from prsmd.service.roles import Roles, RoleWish
from prsmd.store import deployments, organizations
from prsmd.store.db import Database
from tests.service.identity import Office, caller

THERE = 8  # of each noun
MODELS = [f"deploy_{number}" for number in range(5)]
ORGANIZATIONS = ["company", "lab0", "lab1", "lab2", "lab3", "lab4", "lab5", "rival"]


class Counted:
    """A database whose readers' queries and rows are counted."""

    def __init__(self, database):
        self._database = database
        self.queries = self.rows = 0

    @contextlib.asynccontextmanager
    async def read(self):
        async with self._database.read() as self._tx:
            yield self

    async def execute_fetchall(self, sql, parameters=()):
        found = await self._tx.execute_fetchall(sql, parameters)
        self.queries += 1
        self.rows += len(found)
        return found


@pytest.fixture
async def office(tmp_path):
    database = await Database.open(tmp_path / "state")
    made = await Office.open(database)
    for name in MODELS:
        model = Deployment(
            id=name,
            organization="company",
            model_id=f"custom_{name}",
            model_name=name,
            revision=1,
            asked_replicas=0,
            created_at=1.0,
            updated_at=1.0,
        )
        await database.write(lambda tx, model=model: deployments.add(tx, model))
    bindings = [BindingWish("viewer", name) for name in MODELS]
    for number in range(THERE):
        await made.keys.create(caller(), KeyRequest(name=f"k{number}", role="viewer"))
        wish = MemberWish(kind="oidc", subject=f"m{number}", bindings=bindings)
        await made.members.add(caller(), wish)
        permissions = frozenset({Permission.MODELS_READ})
        await made.roles.create(caller(), RoleWish(name=f"r{number}", permissions=permissions))
    for name in ORGANIZATIONS[1:-1]:
        other = Organization(id=name, display_name=name, created_at=1.0, created_by="test")
        await database.write(lambda tx, other=other: organizations.add(tx, other))
    yield made
    await database.close()


NOUNS = pytest.mark.parametrize("noun", ["keys", "members", "roles", "organizations"])


def counted(office, noun):
    database = Counted(office.database)
    registrar = Registrar(database, office.directory)
    made = {
        "keys": lambda: Keys(registrar, office.ring),
        "members": lambda: Members(registrar),
        "roles": lambda: Roles(registrar),
        "organizations": lambda: Organizations(registrar, office.lendings, None),
    }
    return made[noun](), database


@NOUNS
async def test_pages_put_together_are_the_whole_list(office, noun):
    whole, total = await getattr(office, noun).page(caller(), 100, 0)
    assert len(whole) == total == THERE

    pages = [await getattr(office, noun).page(caller(), 3, at) for at in (0, 3, 6, 9)]
    assert [each for shown, _ in pages for each in shown] == whole
    assert {found for _, found in pages} == {THERE}


@NOUNS
async def test_of_a_list_no_more_is_read_than_the_page(office, noun):
    service, database = counted(office, noun)
    [_], total = await service.page(caller(), 1, 3)

    assert total == THERE
    beside = 1 if noun != "members" else 1 + 2 * len(MODELS)  # the count; bindings and models
    assert database.rows == 1 + beside


@NOUNS
async def test_a_longer_page_takes_no_more_queries(office, noun):
    short, few = counted(office, noun)
    long, many = counted(office, noun)

    await short.page(caller(), 1, 0)
    await long.page(caller(), THERE, 0)

    assert many.queries == few.queries <= 4


async def test_members_are_listed_with_the_models_that_they_have_roles_on(office):
    [report], _ = await office.members.page(caller(), 1, 0)

    named = [report.models[each.deployment_id] for each in report.member.bindings]
    assert named == [f"custom_{name}" for name in MODELS]
