"""The lines alone: how many counts one request writes, and whose failures count together."""

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from prsmd.api.access_lines import WHO, AccessLines
from prsmd.api.app import build
from prsmd.api.operations import REQUEST_ID
from prsmd.api.origin import ORIGIN
from prsmd.core.coalesce import Shares
from prsmd.domain.origin import Origin
from tests.api.test_replicas_may_not_call import door

CALLERS = 500
COUNT = re.compile(r"(\d+) more requests")


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "prsmd.access")


def request(address: str, who: str = "") -> web.Request:
    made = make_mocked_request("GET", "/v1/models")
    made[REQUEST_ID], made[ORIGIN] = "r", Origin(ip=address)
    if who:
        made[WHO] = who
    return made


def failing(lines: AccessLines, *requests: web.Request) -> None:
    for each in requests:
        lines.note(each, 401, 0.0)


class Written:
    """What was logged since it was looked at last."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def counts(self) -> list[int]:
        found = [COUNT.match(record.getMessage()) for record in self._caplog.records]
        self._caplog.clear()
        return [int(each[1]) for each in found if each]

    def lines(self) -> int:
        found = len(self._caplog.records)
        self._caplog.clear()
        return found


@pytest.fixture
def written(caplog: pytest.LogCaptureFixture) -> Written:
    return Written(caplog)


def lines_with(shares: Shares) -> tuple[AccessLines, Callable[[float], None]]:
    clock = [0.0]

    def pass_time(seconds: float) -> None:
        clock[0] += seconds

    return AccessLines(shares=shares, monotonic=lambda: clock[0]), pass_time


def test_a_request_after_the_windows_of_many_callers_writes_few_counts(written: Written):
    lines, pass_time = lines_with(Shares(each=1))
    failing(lines, *(request(f"10.0.{n // 250}.{n % 250}") for n in range(CALLERS) for _ in "ab"))
    written.lines()
    pass_time(60.0)
    served, counted = 0, 0
    while counted < CALLERS:
        lines.note(request("192.0.2.1"), 200, 0.0)
        served += 1
        counts = written.counts()
        assert 0 < len(counts) <= 20
        counted += sum(counts)
    assert (served, counted) == (CALLERS // 20, CALLERS)


def test_at_the_end_all_counts_are_written(written: Written):
    lines, pass_time = lines_with(Shares(each=1))
    failing(lines, *(request(f"10.0.{n // 250}.{n % 250}") for n in range(CALLERS) for _ in "ab"))
    pass_time(60.0)
    failing(lines, *[request("192.0.2.1")] * 3)
    counts = written.counts()
    lines.finish()
    counts += written.counts()
    assert sum(counts) == CALLERS + 2


async def test_an_application_that_ends_writes_the_counts(written: Written):
    unused: Any = None
    async with TestClient(TestServer(build(unused, door()))) as client:
        for _ in range(8):
            assert (await client.get("/nowhere")).status == 404
        assert written.counts() == []
    assert written.counts() == [3]


def test_strangers_of_one_ipv6_network_are_one_caller(written: Written):
    lines, _ = lines_with(Shares(each=5))
    failing(lines, *(request(f"2001:db8::{n:x}") for n in range(100)))
    assert written.lines() == 5
    failing(lines, request("2001:db8:0:1::1"))
    assert written.lines() == 1
    lines.finish()
    assert written.counts() == [95]


def test_callers_who_are_known_count_by_who_they_are(written: Written):
    lines, _ = lines_with(Shares(each=5))
    failing(lines, *(request("2001:db8::1", f"key:{n}") for n in range(100)))
    assert written.lines() == 100
