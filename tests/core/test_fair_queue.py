"""Organizations take turns, and their principals; nobody has more than one slot, or all of them."""

from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.fair_queue import Asker, FairQueue, Slots


def queue(total=1, per_organization=1, waiting=100):
    return FairQueue(Slots(total=total, per_organization=per_organization, waiting=waiting))


def served(queue):
    """Give every slot in turn and take it back at once; return who had it, in this order."""
    order = []
    while (turn := queue.take()) is not None:
        asker, ticket = turn
        order.append(ticket)
        queue.give_back(asker)
    return order


def test_an_organization_with_many_requests_has_every_second_turn():
    line = queue()
    for number in range(10):
        line.enter(Asker("loud", f"key{number % 3}"), f"loud{number}")
    line.enter(Asker("quiet", "key"), "quiet0")
    line.enter(Asker("quiet", "key"), "quiet1")
    order = served(line)
    assert order[:5] == ["loud0", "quiet0", "loud1", "quiet1", "loud2"]
    assert len(order) == 12


def test_within_an_organization_its_principals_take_turns():
    line = queue()
    for number in range(5):
        line.enter(Asker("acme", "loud"), f"loud{number}")
    line.enter(Asker("acme", "quiet"), "quiet")
    assert served(line)[:2] == ["loud0", "quiet"]


def test_a_principal_has_one_slot_and_an_organization_not_all():
    line = queue(total=4, per_organization=2)
    for key in ("a", "a", "b", "c", "d"):
        line.enter(Asker("loud", key), key)
    line.enter(Asker("quiet", "key"), "quiet")
    taken = []
    while (turn := line.take()) is not None:
        taken.append(turn[1])
    assert taken == ["a", "quiet", "b"]


def test_who_has_enough_waiting_is_refused_and_nobody_else():
    line = queue(waiting=2)
    asker = Asker("acme", "key")
    assert [line.enter(asker, number) for number in range(3)] == [True, True, False]
    assert line.enter(Asker("acme", "other"), 3)


def test_who_waits_no_longer_is_not_served():
    line = queue()
    asker = Asker("acme", "key")
    line.enter(asker, 1)
    line.enter(asker, 2)
    assert line.withdraw(asker, 1)
    assert not line.withdraw(asker, 1)
    assert not line.withdraw(Asker("acme", "nobody"), 1)
    assert served(line) == [2]


askers = st.builds(Asker, st.sampled_from("abc"), st.sampled_from("xyz"))


@given(st.lists(st.tuples(st.booleans(), askers), max_size=200), st.integers(1, 4))
def test_slots_are_never_exceeded_and_nobody_is_forgotten(steps, total):
    line = queue(total=total, per_organization=max(1, total // 2))
    using, waiting = [], 0
    for enters, asker in steps:
        if enters:
            waiting += line.enter(asker, object())
        elif using:
            line.give_back(using.pop(0))
        while (turn := line.take()) is not None:
            waiting -= 1
            using.append(turn[0])
        assert len(using) <= total
        assert len(set(using)) == len(using)
        for organization in "abc":
            held = sum(one.organization == organization for one in using)
            assert held <= max(1, total // 2)
    for asker in using:
        line.give_back(asker)
    assert len(served(line)) == waiting
