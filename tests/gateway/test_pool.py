"""The pool alone: single moments, told by its repr, and a state machine of all at once."""

import dataclasses

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from prsmd.core.admission import Admit, Refuse, Wait
from prsmd.core.routes import RouteTarget
from prsmd.core.trial import Trial
from prsmd.domain.replica import Endpoint
from prsmd.gateway.pool import Pool
from prsmd.gateway.queue import Ticket
from prsmd.gateway.target import Target
from tests.gateway.backends import route


def at(*replica_ids: str) -> tuple[RouteTarget, ...]:
    return tuple(RouteTarget(replica_id=name, endpoint=Endpoint("h", 1)) for name in replica_ids)


def pool(*replica_ids: str, slots: int = 2, depth: int = 3, **more: object) -> Pool:
    published = route(*at(*replica_ids), max_concurrency=slots, queue_depth=depth, **more)
    return Pool(published, now=0.0)


class Client:
    """Claims once and notes everything it is told."""

    def __init__(self) -> None:
        self.heard: list[Target | Refuse] = []
        self.ticket = Ticket(self.heard.append)
        self.verdict: Admit[Target] | Wait | Refuse | None = None

    def claim(self, pool: Pool, now: float = 0.0) -> "Client":
        self.verdict = pool.claim(self.ticket, now)
        return self

    @property
    def target(self) -> Target | None:
        if isinstance(self.verdict, Admit):
            return self.verdict.target
        return next((each for each in self.heard if isinstance(each, Target)), None)


def test_its_repr_tells_its_state():
    p = pool("a", "b")
    assert repr(p) == "<Pool deploy_a: a 0/2, b 0/2; queue 0/3>"
    clients = [Client().claim(p) for _ in range(6)]
    assert repr(p) == "<Pool deploy_a: a 2/2, b 2/2; queue 2/3>"
    p.update(route(*at("b", "c"), max_concurrency=3, queue_depth=9), 1.0)
    assert repr(p) == "<Pool deploy_a: b 2/3, c 2/3, a 2/2 leaving; queue 0/9>"
    assert clients[0].target is not None
    p.release(clients[0].target, 2.0)
    assert repr(p) == "<Pool deploy_a: b 2/3, c 2/3, a 1/2 leaving; queue 0/9>"
    p.update(route(), 3.0)
    p.close("gone", 3.0)
    assert repr(p) == (
        "<Pool deploy_a: b 2/3 leaving, c 2/3 leaving, a 1/2 leaving; queue 0/64; closed: gone>"
    )


def test_a_released_slot_goes_to_the_longest_waiting_in_the_same_step():
    p = pool("a", slots=1)
    first, second, third = (Client().claim(p) for _ in range(3))
    assert first.target is not None
    p.release(first.target, 1.0)
    assert repr(p) == "<Pool deploy_a: a 1/1; queue 1/3>"
    assert (second.target, third.target) == (first.target, None)


def test_a_replica_that_left_serves_nobody_who_waits():
    p = pool("a", slots=1)
    first, second = Client().claim(p), Client().claim(p)
    p.update(route(max_concurrency=1), 1.0)
    assert first.target is not None
    p.release(first.target, 2.0)
    assert second.heard == []
    assert repr(p) == "<Pool deploy_a: no replica; queue 1/64>"


def test_a_replica_that_comes_back_keeps_its_count():
    p = pool("a")
    client = Client().claim(p)
    p.update(route(), 1.0)
    p.update(route(*at("a"), max_concurrency=2), 2.0)
    assert repr(p) == "<Pool deploy_a: a 1/2; queue 0/64>"
    assert client.target is not None
    p.release(client.target, 3.0)
    assert repr(p) == "<Pool deploy_a: a 0/2; queue 0/64>"


def test_a_new_replica_serves_the_queue_at_once():
    p = pool()
    clients = [Client().claim(p) for _ in range(3)]
    p.update(route(*at("a"), max_concurrency=2), 1.0)
    assert [client.target is not None for client in clients] == [True, True, False]


def test_who_could_not_connect_gets_another_slot_before_the_queue():
    p = pool("a", "b", slots=1)
    first, second, third, fourth = (Client().claim(p) for _ in range(4))
    assert first.target is not None
    assert second.target is not None
    verdict = p.claim_again(first.ticket, first.target, 1.0)
    assert isinstance(verdict, Wait)
    assert third.target is first.target  # the suspect slot goes to one who has not tried it
    p.release(second.target, 2.0)
    assert (first.heard, fourth.heard) == ([second.target], [])


def test_who_tried_everything_waits_for_news_and_then_tries_again():
    p = pool("a", slots=1)
    first = Client().claim(p)
    assert first.target is not None
    assert isinstance(p.claim_again(first.ticket, first.target, 1.0), Wait)
    assert repr(p) == "<Pool deploy_a: a 0/1 suspect; queue 1/3>"
    assert p.shortage(first.ticket) == "no replica accepts connections"
    p.update(p.route, 2.0)
    assert first.heard == [first.target]
    assert repr(p) == "<Pool deploy_a: a 1/1; queue 0/3>"


def test_who_tried_everything_takes_a_new_replica():
    p = pool("a", slots=1)
    first = Client().claim(p)
    assert first.target is not None
    p.claim_again(first.ticket, first.target, 1.0)
    p.update(route(*at("b"), max_concurrency=1), 2.0)
    assert [str(heard) for heard in first.heard] == ["b 1/1"]


def test_who_tried_everything_is_refused_when_the_queue_is_full():
    p = pool("a", slots=1, depth=1)
    first, _waiting = Client().claim(p), Client().claim(p)
    assert first.target is not None
    verdict = p.claim_again(first.ticket, first.target, 1.0)
    assert isinstance(verdict, Refuse)
    assert verdict.reason == "no replica accepts connections"


def test_a_published_replica_is_no_longer_suspect():
    p = pool("a")
    client = Client().claim(p)
    assert client.target is not None
    p.claim_again(client.ticket, client.target, 1.0)
    assert p.leave(client.ticket, 1.5)
    assert repr(p) == "<Pool deploy_a: a 0/2 suspect; queue 0/3>"
    p.update(p.route, 2.0)
    assert repr(p) == "<Pool deploy_a: a 0/2; queue 0/3>"


def test_how_long_to_wait_before_trying_again_follows_what_inferences_take():
    p = pool("a", slots=1, depth=0)
    for _ in range(60):
        client = Client().claim(p)
        assert client.target is not None
        p.release(client.target, 0.0, seconds=12.0)
    Client().claim(p)
    refused = Client().claim(p).verdict
    assert isinstance(refused, Refuse)
    assert refused.retry_after_seconds == 12


def test_the_load_is_averaged_over_time_with_the_queue_included():
    p = pool("a", slots=1)
    first = Client().claim(p, 0.0)
    Client().claim(p, 0.0)
    assert first.target is not None
    load = p.load(10.0)
    assert (load.in_flight, load.queued, load.slots, load.targets) == (1, 1, 1, 1)
    assert load.average == 2.0
    p.release(first.target, 10.0)
    assert p.load(20.0).average == 1.5


def on_trial(*replica_ids: str) -> tuple[RouteTarget, ...]:
    return tuple(dataclasses.replace(each, on_trial=True) for each in at(*replica_ids))


def test_each_side_of_a_trial_rotates_by_itself():
    targets = (*at("s"), *on_trial("t1", "t2"))
    p = Pool(route(*targets, trial=Trial(key="1", weight=50)), 0.0)
    names = []
    for _ in range(8):
        client = Client().claim(p)
        assert client.target is not None
        names.append(client.target.replica_id)
        p.release(client.target, 0.0)
    assert names == ["s", "t1", "s", "t2"] * 2


def test_a_copy_takes_a_slot_only_of_the_side_on_trial():
    p = Pool(route(*at("s"), *on_trial("t"), trial=Trial(key="1"), max_concurrency=1), 0.0)
    copied = p.claim_copy()
    assert copied is not None
    assert p.claim_copy() is None
    assert repr(p) == "<Pool deploy_a: s 0/1, t 1/1 on trial; queue 0/64>"
    assert p.empty
    p.release_copy(copied, 1.0)
    p.update(route(*at("s")), 2.0)
    assert p.claim_copy() is None


class PoolMachine(RuleBasedStateMachine):
    """Claims, releases, lost connections, departures, copies and published tables in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.depth = 3
        self.pool = pool("r0", "r1", slots=2, depth=self.depth)
        self.holding: list[tuple[Client, Target]] = []
        self.waiting: list[Client] = []
        self.copies: list[Target] = []

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def settle(self) -> None:
        """Move everyone who was told something out of the waiting."""
        for client in list(self.waiting):
            assert len(client.heard) <= 1, "told twice"
            if client.heard:
                self.waiting.remove(client)
                heard = client.heard.pop()
                if isinstance(heard, Target):
                    self.holding.append((client, heard))

    def take(self, client: Client, verdict: Admit[Target] | Wait | Refuse) -> None:
        if isinstance(verdict, Admit):
            self.holding.append((client, verdict.target))
        elif isinstance(verdict, Wait):
            self.waiting.append(client)

    @rule()
    def claim(self) -> None:
        queued = self.pool.load(self.now).queued
        client = Client().claim(self.pool, self.tick())
        assert client.verdict is not None
        self.take(client, client.verdict)
        if isinstance(client.verdict, Wait):
            assert queued < self.depth

    @precondition(lambda self: self.holding)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        _, target = self.holding.pop(data.draw(st.integers(0, len(self.holding) - 1)))
        self.pool.release(target, self.tick(), seconds=1.0)
        self.settle()

    @precondition(lambda self: self.holding)
    @rule(data=st.data())
    def cannot_connect(self, data: st.DataObject) -> None:
        client, target = self.holding.pop(data.draw(st.integers(0, len(self.holding) - 1)))
        verdict = self.pool.claim_again(client.ticket, target, self.tick())
        if isinstance(verdict, Admit):
            assert verdict.target.replica_id not in client.ticket.tried
        self.take(client, verdict)
        self.settle()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        client = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        assert self.pool.leave(client.ticket, self.tick())
        assert not self.pool.leave(client.ticket, self.tick())

    @rule()
    def copy(self) -> None:
        target = self.pool.claim_copy()
        if target is not None:
            assert target.on_trial
            self.copies.append(target)

    @precondition(lambda self: self.copies)
    @rule()
    def end_copy(self) -> None:
        self.pool.release_copy(self.copies.pop(), self.tick())
        self.settle()

    @rule(
        stable=st.lists(st.sampled_from(["r0", "r1", "r2"]), unique=True),
        tried=st.lists(st.sampled_from(["r3", "r4"]), unique=True),
        slots=st.integers(1, 3),
        trial=st.none()
        | st.builds(
            Trial,
            key=st.sampled_from("ab"),
            weight=st.sampled_from([0, 50, 100]),
            shadow_percent=st.sampled_from([0, 100]),
        ),
        hopeless=st.booleans(),
    )
    def publish(
        self,
        stable: list[str],
        tried: list[str],
        slots: int,
        trial: Trial | None,
        hopeless: bool,
    ) -> None:
        published = route(
            *at(*stable),
            *on_trial(*tried),
            max_concurrency=slots,
            queue_depth=self.depth,
            trial=trial,
            hopeless=hopeless,
        )
        self.pool.update(published, self.tick())
        self.settle()

    def may_have(self, client: Client, target: Target) -> bool:
        """Tell whether a free target may be given to who waits."""
        trial = self.pool.route.trial
        if target.leaving or target.replica_id in client.ticket.tried:
            return False
        if target.on_trial == client.ticket.on_trial or trial is None:
            return True
        if target.on_trial and trial.compares_only:
            return False
        own = [each for each in self.pool if each.on_trial == client.ticket.on_trial]
        return not any(
            each.replica_id not in client.ticket.tried and not each.suspect
            for each in own
            if not each.leaving
        )

    @invariant()
    def every_slot_counted_is_held_by_someone(self) -> None:
        held: dict[int, int] = {}
        for target in (*(target for _, target in self.holding), *self.copies):
            held[id(target)] = held.get(id(target), 0) + 1
        counted = {id(target): target.in_flight for target in self.pool if target.in_flight}
        assert counted == held
        assert self.pool.load(self.now).in_flight == len(self.holding)
        assert self.pool.load(self.now).queued == len(self.waiting)

    @invariant()
    def nobody_waits_for_a_slot_that_is_free(self) -> None:
        free = [each for each in self.pool if each.in_flight < each.slots]
        for client in self.waiting:
            assert not any(self.may_have(client, each) for each in free)

    @invariant()
    def idle_exactly_when_nothing_is_held_or_waited_for(self) -> None:
        assert (self.pool.idle_since is None) == bool(self.holding or self.waiting)
        assert self.pool.empty == (self.pool.idle_since is not None)

    @invariant()
    def a_leaving_replica_without_work_is_forgotten(self) -> None:
        assert all(each.in_flight for each in self.pool if each.leaving)

    def teardown(self) -> None:
        self.pool.close("over", self.tick())
        self.settle()
        assert not self.waiting
        for _, target in self.holding:
            self.pool.release(target, self.tick())
        for target in self.copies:
            self.pool.release_copy(target, self.tick())
        assert self.pool.empty
        assert not any(target.in_flight for target in self.pool)


PoolMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestPoolMachine = PoolMachine.TestCase
