"""Limits hold at any concurrency and whatever ends the daemon: a real one, real clients.

The model itself counts what reaches it. PRSMD_KILLS and PRSMD_KILL_SECONDS make the run longer.
"""

import contextlib
import csv
import io
import logging
import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prsmd.core.blocks import LARGEST_BLOCK
from tests.limits.site import INFER, MODEL, SETTINGS, SLOTS, Clients, Site, usage
from tests.support.daemon import running_daemon

CLIENTS = 64
ENOUGH = 10**9
KILLS = int(os.environ.get("PRSMD_KILLS", "2"))
KILL_SECONDS = float(os.environ.get("PRSMD_KILL_SECONDS", "0.7"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_daemon(tmp_path, SETTINGS) as daemon:
        yield Site.of(daemon)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_daemon(tmp_path_factory.mktemp("races"), SETTINGS) as daemon:
        yield Site.of(daemon)


@pytest.mark.parametrize(
    ("of", "limit", "spent"),
    [
        ("share", "total_requests", 5),
        ("share", "requests_per_day", 5),
        ("share", "requests_per_minute", 0),
        ("key", "requests_per_day", 5),
        ("key", "requests_per_minute", 0),
    ],
)
def test_a_hundred_clients_race_for_the_last_one_and_one_gets_it(
    lasting: Site, of: str, limit: str, spent: int
) -> None:
    before, limits = lasting.reached, {limit: spent + 1}
    key = lasting.key(**limits) if of == "key" else lasting.partner
    if of == "share":
        lasting.share(**limits)
    for _ in range(spent):
        assert lasting.daemon.call("POST", INFER, {"inputs": "x"}, key=key).status == 200
    racing = Clients(lasting, 100, key)
    racing.start()
    racing.join()

    assert racing.statuses == {200: 1, 429: 100}
    assert racing.refusals == {limit: 100}
    assert lasting.reached - before == spent + 1


def test_a_hundred_clients_at_once_and_as_many_under_way_as_may_be(lasting: Site) -> None:
    lasting.share(concurrent_requests=1)
    before = lasting.reached
    lasting.hold()
    racing = Clients(lasting, 100, once=True)
    racing.start()
    racing.until_refused(99)
    lasting.let_go()
    racing.join()

    assert racing.statuses == {200: 1, 429: 99}
    assert racing.refusals == {"concurrent_requests": 99}
    assert lasting.reached - before == 1


def test_never_more_at_once_than_may_be(lasting: Site) -> None:
    lasting.share(concurrent_requests=3)
    lasting.forget()
    for _ in range(5):
        racing = Clients(lasting, 30, once=True)
        racing.start()
        racing.join()
    assert 1 <= lasting.most_at_once <= 3


def test_inferences_that_reach_no_container_cost_a_key_nothing(lasting: Site) -> None:
    key = lasting.key(requests_per_day=3, requests_per_minute=3)
    for _ in range(5):
        missing = lasting.daemon.call("POST", "/v1/models/nobody/infer", {"inputs": 1}, key=key)
        wrong = lasting.daemon.call("POST", INFER, {"inptus": 1}, key=key)
        assert (missing.status, wrong.status) == (404, 400)
    before = lasting.reached
    assert lasting.daemon.call("GET", "/v1/models", key=key).headers["X-RateLimit-Remaining"] == "2"
    racing = Clients(lasting, 20, key)
    racing.start()
    racing.join()
    assert racing.statuses == {200: 2, 429: 20}
    assert lasting.reached - before == 2


@pytest.mark.slow
def test_a_clean_restart_forfeits_nothing_and_what_is_told_is_what_reached_the_model(
    site: Site,
) -> None:
    site.share(requests_per_day=200)
    for _ in range(2):
        for _ in range(20):
            assert site.daemon.call("POST", INFER, {"inputs": "x"}, key=site.partner).status == 200
        assert site.daemon.stop() == 0
        site.daemon.start()
    assert site.left() == {"requests_per_day": 160}
    site.daemon.until("a ready replica", lambda: site.daemon.infer("counter").status == 200)
    own = site.reached - 40
    rest = Clients(site, 8)
    rest.start()
    rest.join()
    assert rest.statuses == {200: 160, 429: 8}
    assert site.reached - own == 200
    assert usage(site) == {"requests": 200, "refused": 8}
    told = site.daemon.call("GET", f"{MODEL}/usage?format=csv").raw.decode()
    rows = list(csv.DictReader(io.StringIO(told)))
    assert sum(int(row["requests"]) for row in rows) == site.reached


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_random_the_daemon_never_lets_one_too_many(site: Site) -> None:
    share = site.share(total_requests=ENOUGH)
    clients = Clients(site, CLIENTS)
    clients.start()
    forfeited, before = [], (0, 0)
    for _ in range(KILLS):
        time.sleep(random.uniform(0.3, 2 * KILL_SECONDS))  # when is what varies
        site.daemon.kill()
        now = _set_aside(site, share), _settled(site)
        forfeited.append((now[0] - before[0]) - (now[1] - before[1]))
        before = now
        site.daemon.start()
    assert not clients.refusals
    limit = ENOUGH - site.left()["total_requests"] + 300
    told = site.daemon.call(
        "PATCH", f"{MODEL}/shares/{share}", {"usage_limits": {"total_requests": limit}}
    )
    assert told.status == 200, told
    clients.join(300)

    report = f"{limit} allowed, {site.reached} reached, forfeited {forfeited}: {clients.statuses}"
    logging.getLogger(__name__).info(report)
    assert clients.statuses[200] <= site.reached <= limit, report
    assert all(0 <= one <= LARGEST_BLOCK + SLOTS for one in forfeited), report
    assert limit - site.reached == sum(forfeited), report
    assert set(clients.refusals) == {"total_requests"}


def _set_aside(site: Site, share: str) -> int:
    """Return what the store of a dead daemon has set aside: it counts as spent from now on."""
    path = site.daemon.folder / "state" / "control.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        query = "SELECT reserved FROM leases WHERE account = ?"
        return int(database.execute(query, (f"{share}/partner",)).fetchone()[0])


def _settled(site: Site) -> int:
    """Return how many had reached the model when all of them had: each lasts 20 ms."""
    quiet = threading.Event()
    seen = -1
    while seen != site.reached:
        seen = site.reached
        quiet.wait(0.1)
    return seen
