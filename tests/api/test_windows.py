"""Pages of lists are written away from the loop."""

import json
import threading

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


async def test_a_page_is_written_in_a_thread():
    seen = []

    def body_of(_item):
        seen.append(threading.current_thread())
        return {}

    await page_response("items", range(100), body_of, Page(limit=100), 100)

    assert len(seen) == 100
    assert threading.main_thread() not in seen
