"""What a model costs whose replicas keep failing: steps in proportion to its rows, not to rows
times slots.
"""

import dataclasses

import pytest

from prsmd.core.plan import Plan
from prsmd.core.reconcile import Policy, reconcile
from prsmd.core.routes import routes
from prsmd.core.status import derive
from tests.core.cases import NOW, deployment, failed, observed, replica
from tests.core.situations import REPLACING, rolling, rollout

FAILURES = 8  # rows of each slot
FEW, MANY = 5, 50


class Counted(tuple):  # noqa: SLOT001 - it has a count
    """A tuple that counts how many of its items were looked at."""

    looks = 0

    def __iter__(self):
        for item in super().__iter__():
            self.looks += 1
            yield item


def rows(slots, **changes):
    return [
        failed(slot, number, at=NOW - FAILURES + number, **changes)
        for number in range(FAILURES)
        for slot in range(slots)
    ]


def failing(slots):
    return deployment(*rows(slots), asked=slots, most=slots)


def failing_anew(slots):
    """Return a model whose new revision fails, as the one before it did."""
    return rolling(*rows(slots), now=rollout(REPLACING), most=slots, asked=slots)


def due(slots):
    """Return a model whose replicas failed long ago: each slot is filled now."""
    ended = [dataclasses.replace(row, finished_at=NOW - 1000) for row in rows(slots)]
    return deployment(*ended, asked=slots, most=slots)


def looks_for_each_row(make, slots, work):
    item = make(slots)
    counted = Counted(item.replicas)
    holds = reconcile([item], observed(), NOW, Policy()).holds
    work(dataclasses.replace(item, replicas=counted), holds)
    return counted.looks / len(counted)


def decide(item, holds):
    reconcile([item], observed(), NOW, Policy())


def show(item, holds):
    derive(item, observed(), holds)


def route(item, holds):
    routes([item], observed(), Plan(holds=holds))


@pytest.mark.parametrize("work", [decide, show, route])
@pytest.mark.parametrize("make", [failing, failing_anew, due])
def test_ten_times_as_many_slots_look_at_each_row_no_more_than_twice_as_often(make, work):
    assert looks_for_each_row(make, MANY, work) <= 2 * looks_for_each_row(make, FEW, work)


def test_the_holds_are_looked_at_once_however_many_models_there_are():
    models = [
        deployment(failed(deployment_id=f"d{number}", at=NOW), id=f"d{number}")
        for number in range(MANY)
    ]
    plan = reconcile(models, observed(), NOW, Policy())
    counted = Counted(plan.holds)
    table = routes(models, observed(), dataclasses.replace(plan, holds=counted))

    assert len(counted) == MANY
    assert counted.looks == MANY
    assert all("failed" in route.waiting_for for route in table.routes.values())


def test_slots_are_told_apart_and_what_ended_in_another_one_holds_none():
    item = deployment(*rows(2), replica(2), asked=4, most=4)
    holds = reconcile([item], observed(), NOW, Policy()).holds
    assert [hold.slot for hold in holds if hold.kind == "backoff"] == [0, 1]
