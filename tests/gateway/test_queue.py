"""The queue alone: who is served in which order, and how much is looked at for it."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.routes import RouteTarget
from prsmd.domain.replica import Endpoint
from prsmd.gateway.queue import Queue, Ticket
from prsmd.gateway.target import Target
from tests.gateway.backends import route

MANY = 1000


def target(name: str = "a") -> Target:
    published = RouteTarget(replica_id=name, endpoint=Endpoint("h", 1))
    return Target(published, route(published))


def ticket(arrival: int, *tried: str, on_trial: bool = False) -> Ticket:
    return Ticket(lambda _: None, on_trial=on_trial, arrival=arrival, tried=frozenset(tried))


def queue_of(*tickets: Ticket) -> Queue:
    queue = Queue()
    for each in tickets:
        queue.add(each)
    return queue


def never(_ticket: Ticket, _target: Target) -> None:
    raise AssertionError


@pytest.mark.parametrize("on_trial", [False, True])
def test_who_can_have_nothing_is_looked_at_once_for_all_who_tried_the_same(on_trial: bool):
    tickets = [ticket(n, "a", on_trial=on_trial) for n in range(MANY)]
    tickets += [ticket(MANY + n, "a", "b", on_trial=on_trial) for n in range(MANY)]
    tickets += [ticket(2 * MANY + n, on_trial=on_trial) for n in range(MANY)]
    queue = queue_of(*tickets)
    asked: list[int] = []
    queue.serve({"c"}, lambda each: asked.append(each.arrival), never)
    assert asked == [0, MANY, 2 * MANY]
    assert len(queue) == 3 * MANY


def test_who_tried_every_free_replica_is_not_looked_at_however_many_sets_were_tried():
    sets = list(itertools.combinations([f"replica-{n}" for n in range(20)], 3))[:MANY]
    queue = queue_of(*(ticket(n, "free", *tried) for n, tried in enumerate(sets)))
    asked: list[Ticket] = []
    queue.serve({"free"}, asked.append, never)
    assert asked == []
    queue.serve(set(), asked.append, never)
    assert asked == []
    queue.serve({"free", "replica-0"}, asked.append, never)
    assert len(asked) == sum("replica-0" not in tried for tried in sets)


def test_who_leaves_opens_no_gap_and_leaves_no_line_behind():
    tickets = [ticket(n, f"replica-{n}") for n in range(MANY)]
    queue = queue_of(*tickets)
    assert all(queue.remove(each) for each in tickets)
    assert not any(queue.remove(each) for each in tickets)
    asked: list[Ticket] = []
    queue.serve({"a"}, asked.append, never)
    assert (asked, len(queue)) == ([], 0)


def test_who_is_forgiven_stands_where_it_would_had_it_waited_all_along():
    queue = queue_of(ticket(2), ticket(4), ticket(3, "a"), ticket(1, "b"), ticket(5, "a", "b"))
    queue.forgive()
    served: list[int] = []
    queue.serve({"a"}, lambda _: target(), lambda each, _: served.append(each.arrival))
    assert served == [1, 2, 3, 4, 5]
    assert len(queue) == 0


WAITING = st.lists(
    st.tuples(st.booleans(), st.frozensets(st.sampled_from("abc")), st.booleans()), max_size=30
)


@given(
    WAITING,
    st.randoms(use_true_random=False),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
)
def test_the_lines_serve_as_if_each_was_asked_in_order_of_arrival(
    waiting: list[Any], random: Any, free: dict[str, int]
):
    tickets = [ticket(n, *tried, on_trial=side) for n, (side, tried, _) in enumerate(waiting)]
    leaving = [each for each, (_, _, leaves) in zip(tickets, waiting, strict=True) if leaves]
    queue = queue_of(*random.sample(tickets, len(tickets)))
    assert all(queue.remove(each) for each in leaving)
    targets = {name: target(name) for name in "abc"}

    def having(left: dict[str, int]) -> Any:
        """The first side may have a and b, the other b and c, of each so many."""

        def choose(each: Ticket) -> Target | None:
            own = [name for name in ("bc" if each.on_trial else "ab") if name not in each.tried]
            return next((targets[name] for name in own if left.get(name, 0)), None)

        return choose

    expected, left = [], dict(free)
    for each in tickets:
        found = None if each in leaving else having(left)(each)
        if found is not None:
            left[found.replica_id] -= 1
            expected.append((each.arrival, found.replica_id))
    given_to, now_left = [], dict(free)

    def give(each: Ticket, found: Target) -> None:
        now_left[found.replica_id] -= 1
        given_to.append((each.arrival, found.replica_id))

    queue.serve({name for name in free if free[name]}, having(now_left), give)
    assert given_to == expected
    assert len(queue) == len(tickets) - len(leaving) - len(expected)
    assert sorted(each.arrival for each in queue) == [each.arrival for each in queue.clear()]
