"""Use of a model: a page of it, and all of it in parts; only of whom the caller may see."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prsmd.domain.errors import ModelNotFoundError
from prsmd.domain.quota import Use
from prsmd.engine.flusher import Flusher
from prsmd.service.status import Page
from prsmd.service.usage import Usage
from prsmd.store import usage
from prsmd.store.db import USAGE, Database
from tests.api.served import served
from tests.engine.harness import Life, caller

DAY = 20_000
DAYS = (DAY, DAY + 9)
ROWS = 450
MODEL = "/v1/custom-models/legal/usage?from=2024-10-04&to=2024-10-13"


@pytest.fixture
async def books(life: Life, tmp_path: Path) -> AsyncIterator[Database]:
    """A usage file with more of one model than is read at once."""
    deployment = await life.deploy()
    use = Use(
        day=DAY,
        deployment_id=deployment,
        organization="default",
        principal="key:k",
        owner="default",
        model_id="custom_legal",
        requests=1,
    )
    uses = [
        dataclasses.replace(use, day=DAY + number % 3, principal=f"key:k{number}")
        for number in range(ROWS)
    ]
    opened = await Database.open(tmp_path, file=USAGE)
    await opened.write(lambda tx: usage.add(tx, uses))
    yield opened
    await opened.close()


async def test_all_use_comes_in_parts_that_are_together_all_pages(
    life: Life, books: Database
) -> None:
    told = Usage(life.database, books, Flusher((), 1.0))

    parts = [part async for part in told.export(caller(), "legal", DAYS)]

    everything, total = await told.page(caller(), "legal", DAYS, Page(limit=1000))
    assert [use for part in parts for use in part] == everything
    assert len(everything) == total == ROWS
    assert max(map(len, parts)) <= 200


async def test_who_may_not_see_a_model_gets_no_part_of_its_use(life: Life, books: Database) -> None:
    told = Usage(life.database, books, Flusher((), 1.0))
    with pytest.raises(ModelNotFoundError):
        await anext(told.export(caller("owner", "rival"), "legal", DAYS))


async def test_where_no_use_is_kept_there_is_none(life: Life) -> None:
    await life.deploy()
    told = Usage(life.database, None, Flusher((), 1.0))
    assert [part async for part in told.export(caller(), "legal", DAYS)] == [()]
    assert await told.page(caller(), "legal", DAYS, Page()) == ((), 0)


async def test_a_table_is_sent_in_pieces_with_one_head(
    life: Life, books: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life.services.usage, "_books", books)
    async with (
        served(life, tmp_path) as door,
        door.session.get(f"http://localhost{MODEL}&format=csv") as answer,
    ):
        pieces = [piece async for piece, _ in answer.content.iter_chunks()]
        kind, length = answer.headers["Content-Type"], answer.content_length

    head, *lines = b"".join(pieces).decode().splitlines()
    assert (kind, length) == ("text/csv; charset=utf-8", None)
    assert head.startswith("day,organization,principal,key_id,model_id,requests,")
    assert len(lines) == len(set(lines)) == ROWS
    assert lines[0].startswith("2024-10-06,default,key:k101,k101,custom_legal,1,0,0,0.0,0,0")
    assert max(piece.count(b"\n") for piece in pieces) <= 201


async def test_a_table_of_nothing_is_its_head(life: Life, tmp_path: Path) -> None:
    await life.deploy()
    async with (
        served(life, tmp_path) as door,
        door.session.get(f"http://localhost{MODEL}&format=csv") as answer,
    ):
        assert (await answer.text()).count("\n") == 1
