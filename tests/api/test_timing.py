"""How long an answer takes tells nothing of whether another organization has such a model.

10,000 requests, half of them for what is another's and half for what never was, in random order on
one connection. Compared are the two distributions: the bound is above what chance does to two
halves of the same one, and below what one more query of the store would do.
"""

import contextlib
import http.client
import json
import random
import statistics
import time

import pytest

from tests.api.cells import NEVER
from tests.api.conftest import Site
from tests.api.document import INFER

REQUESTS = 10_000
MOST_DISTANCE = 0.1  # chance alone: 0.06 once in a hundred times, 0.1 once in a million
MOST_MEDIANS = 0.08  # of the median, by which the two may differ
PATHS = {
    "a model": ("GET", "/v1/custom-models/{model_id}", 0.4),
    "a deployment": ("GET", "/v1/custom-models/deployments/{deployment_id}", 0.3),
    "an inference": ("POST", "/v1/models/{model_id}/infer", 0.3),
}


def distance(one: list[float], other: list[float]) -> float:
    """Return the largest difference between two empirical distributions (Kolmogorov-Smirnov)."""
    points = sorted([(value, 1 / len(one)) for value in one]
                    + [(value, -1 / len(other)) for value in other])  # fmt: skip
    running = largest = 0.0
    for place, (value, step) in enumerate(points):
        running += step
        if place + 1 == len(points) or points[place + 1][0] != value:
            largest = max(largest, abs(running))
    return largest


def test_the_measure_finds_what_it_should_and_no_more():
    chance = random.Random(1)
    same = [[chance.gauss(1.0, 0.2) for _ in range(5000)] for _ in range(2)]
    later = [value + 0.05 for value in same[1]]

    assert distance(*same) < MOST_DISTANCE
    assert distance(same[0], later) > MOST_DISTANCE


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", PATHS)
def test_no_time_tells_anothers_from_what_never_was(site: Site, what):
    method, path, part = PATHS[what]
    theirs = {"model_id": site.other_model, "deployment_id": site.other_deployment}
    paths = {"theirs": path.format(**theirs), "never": path.format(**NEVER)}
    order = ["theirs", "never"] * int(REQUESTS * part / 2)
    random.Random(7).shuffle(order)
    took = measured(site, method, paths, order)

    medians = [statistics.median(took[kind]) for kind in ("theirs", "never")]
    assert distance(took["theirs"], took["never"]) < MOST_DISTANCE, medians
    assert abs(medians[0] - medians[1]) < MOST_MEDIANS * min(medians), medians


def measured(site: Site, method: str, paths: dict[str, str], order: list[str]):
    """Return how long each request took, by what it was for."""
    took: dict[str, list[float]] = {kind: [] for kind in paths}
    headers = {"Authorization": f"Bearer {site.keys['owner']}"}
    body = None
    if method == "POST":
        body = json.dumps(INFER).encode()
        headers["Content-Type"] = "application/json"
    connection = http.client.HTTPConnection("127.0.0.1", site.daemon.tcp_port, timeout=30)
    with contextlib.closing(connection):
        for kind in order:
            began = time.perf_counter()
            connection.request(method, paths[kind], body, headers)
            answer = connection.getresponse()
            answer.read()
            took[kind].append(time.perf_counter() - began)
            assert answer.status == 404
    return took
