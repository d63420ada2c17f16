"""Pages of lists are written a little at a time."""

import asyncio
import collections
import json

from prsmd.api.windows import page_response
from prsmd.service.status import Page


async def test_a_page_is_written_as_every_list_is_answered():
    for shown in ([], ["a"], [*"abcdefghijklmnopqrstuvwxyz"]):
        wanted = Page(limit=26, offset=3)
        answer = await page_response("letters", shown, lambda one: {"is": one}, wanted, 100)

        assert answer.content_type == "application/json"
        assert json.loads(answer.body) == {
            "letters": [{"is": one} for one in shown],
            "total": 100,
            "limit": 26,
            "offset": 3,
            "has_more": True,
        }


async def test_others_get_their_turn_while_a_page_of_large_items_is_written():
    turn, seen = 0, []

    async def count():
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def body_of(_item):
        seen.append(turn)
        return {"large": "x" * 10_000}

    counting = asyncio.create_task(count())
    await page_response("items", range(100), body_of, Page(limit=100), 100)
    counting.cancel()

    assert len(seen) == 100
    assert max(collections.Counter(seen).values()) <= 2
