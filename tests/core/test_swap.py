"""Who gives way to a new replica that does not fit beside it, and whose room that is."""

import pytest

from prsmd.core.plan import Drain, Launch, Probe
from prsmd.domain.quantity import GIB
from prsmd.domain.replica import ReplicaState
from prsmd.domain.rollout import RolloutPhase, RolloutStrategy
from prsmd.domain.spec import Resources
from tests.core.cases import (
    HALF_GPU,
    NOW,
    ONE_GPU,
    SMALL,
    changed,
    container,
    deployment,
    failed,
    gpu,
    healthy,
    node,
    replica,
)
from tests.core.situations import TRYING, done, new, on_gpu, plan, rolling, rollout

S = RolloutStrategy
STARTING, DRAINING = ReplicaState.STARTING, ReplicaState.DRAINING
TWO_GPUS = Resources(cpu_millis=1000, memory_bytes=GIB, gpu_millis=2000)


def old(slot=0, *indices, state=ReplicaState.RUNNING, **values):
    return replica(slot, state, placement=on_gpu(*(indices or (slot,))), **values)


def cards(count):
    return node(*(gpu(index) for index in range(count)))


def full(*rows, now=None, asked=None, resources=ONE_GPU, **changes):
    """Return a deployment whose replicas hold GPUs, in the middle of its rollout."""
    under_way = now or rollout(base=len(rows))
    return rolling(*rows, now=under_way, asked=asked or len(rows), resources=resources, **changes)


def drained(result):
    return [action.replica.id for action in result.actions if isinstance(action, Drain)]


def launched(result):
    return [action.replica.deployment_id for action in result.actions if isinstance(action, Launch)]


def words(result):
    return [(hold.slot, hold.kind, hold.reason) for hold in result.holds]


# One gives way.


def test_beside_it_where_there_is_room():
    item = full(old(0))
    result = plan(item, sees=healthy(*item.replicas, here=cards(2)))
    assert (drained(result), launched(result)) == ([], ["deploy_a"])


def test_where_there_is_none_one_gives_way_and_the_slot_says_so():
    item = full(old(0))
    result = plan(item, sees=healthy(*item.replicas, here=cards(1)))
    (drain,) = result.actions
    assert drain.reason == "makes room for revision 2, which does not fit beside it"
    name = item.replicas[0].id
    assert words(result) == [(0, "swap", f"waits for the room of {name}, which is drained for it")]


def test_one_at_a_time():
    item = full(old(0), old(1))
    result = plan(item, sees=healthy(*item.replicas, here=cards(2)))
    (name,) = drained(result)
    assert words(result)[1] == (1, "swap", f"its turn comes after {name} gave way")


def test_the_next_one_only_when_the_one_before_is_ready():
    coming = new(0, STARTING, placement=on_gpu(0), ready_at=None)
    item = full(coming, old(1), now=rollout(base=2), asked=2)
    sees = changed(
        healthy(item.replicas[1], here=cards(2)), containers=tuple(map(container, item.replicas))
    )
    result = plan(item, sees=sees)
    assert drained(result) == []
    assert words(result) == [(1, "swap", f"replica {coming.id} has to be ready first")]


def test_nobody_gives_way_in_the_tick_in_which_another_one_is_launched():
    item = full(*(old(slot) for slot in range(6)), now=rollout(base=6, max_surge=6))
    result = plan(item, sees=healthy(*item.replicas, here=cards(7)))
    assert (drained(result), launched(result)) == ([], ["deploy_a"])
    assert "has to be ready first" in words(result)[0][2]


def test_nobody_gives_way_while_what_is_too_many_leaves_anyway():
    item = full(old(0), old(1), asked=1)
    result = plan(item, sees=healthy(*item.replicas, here=cards(2)))
    assert done(result) == [("Drain", item.replicas[1].id)]
    assert result.actions[0].reason == "only 1 replicas are wanted"


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (old(0, state=STARTING, ready_at=None), old(1)),
        (old(1, created_at=NOW - 50), old(0)),
        (old(1), old(0)),
    ],
    ids=["not ready", "the newer one", "idle"],
)
def test_the_one_that_serves_least_gives_way(worse, better):
    item = full(worse, better)
    ready = {r.id: Probe(ready=r.state is not STARTING) for r in item.replicas}
    sees = changed(healthy(*item.replicas, here=cards(2)), probes=ready, in_flight={better.id: 3})
    assert drained(plan(item, sees=sees)) == [worse.id]


def test_the_good_revision_gives_way_after_one_that_was_superseded():
    between = new(5, placement=on_gpu(1), created_at=NOW - 100)
    item = full(old(0), between, now=rollout(from_revision=1, to_revision=3, base=2))
    second = changed(item.revision, image_digest="sha-of-2")
    third = changed(second, number=3, image_digest="sha-of-3")
    item = changed(item, revision=third, others=(*item.others, second))
    item = changed(item, deployment=changed(item.deployment, revision=3))
    sees = healthy(*item.replicas, here=cards(2), in_flight={between.id: 9})
    assert drained(plan(item, sees=sees)) == [between.id]


def test_a_cpu_is_swapped_like_a_gpu():
    item = rolling(replica(0), now=rollout(base=1))
    result = plan(item, sees=healthy(*item.replicas, here=node(cpu=1500)))
    assert drained(result) == [item.replicas[0].id]


def test_a_share_gives_way_to_a_share():
    shares = [replica(slot, placement=on_gpu(0, millis=500)) for slot in range(2)]
    item = full(*shares, resources=HALF_GPU)
    assert len(drained(plan(item, sees=healthy(*shares, here=cards(1))))) == 1


def test_those_that_are_needed_together_go_together_and_no_other():
    rows = [old(0, 0), old(1, 1), old(2, 2)]
    item = full(*rows, resources=TWO_GPUS)
    sees = healthy(*rows, here=cards(3), in_flight={rows[1].id: 1})
    result = plan(item, sees=sees)
    assert sorted(drained(result)) == [rows[0].id, rows[2].id]
    assert result.actions[0].reason == (
        "makes room for revision 2, which fits only where 2 earlier replicas have gone (recreate)"
    )


def test_one_too_many_is_spared():
    halves = [
        replica(slot, placement=on_gpu(card, millis=500), created_at=NOW - 100 - slot)
        for slot, card in enumerate([0, 1, 0, 1])
    ]
    item = full(*halves, resources=ONE_GPU)
    assert len(drained(plan(item, sees=healthy(*halves, here=cards(2))))) == 2


# Nobody gives way in vain, or where it was not asked for.


@pytest.mark.parametrize("strategy", [S.AUTO, S.BUFFERED_SWAP, S.RECREATE])
def test_nobody_gives_way_where_the_new_one_would_not_fit_even_then(strategy):
    item = full(old(0), now=rollout(base=1, strategy=strategy), resources=TWO_GPUS)
    result = plan(item, sees=healthy(*item.replicas, here=cards(1)))
    assert result.actions == ()
    assert words(result) == [
        (0, "unplaceable", "insufficient resources: 1 of 1 GPUs refused, 2 asked")
    ]


@pytest.mark.parametrize(
    "now",
    [
        rollout(base=1, strategy=S.SURGE),
        rollout(TRYING, strategy=S.BLUE_GREEN),
        rollout(TRYING, strategy=S.SHADOW),
        rollout(TRYING, strategy=S.CANARY),
    ],
    ids=["surge", "blue and green", "shadow", "a canary of the only one"],
)
def test_strategies_that_only_go_beside_it_say_that_there_is_no_room(now):
    item = full(old(0), now=now)
    result = plan(item, sees=healthy(*item.replicas, here=cards(1)))
    assert result.actions == ()
    assert [hold.kind for hold in result.holds] == ["unplaceable"]


def test_a_canary_takes_the_room_of_one_but_is_never_all_that_serves():
    canary = rollout(TRYING, strategy=S.CANARY, base=2)
    rows = [old(0), old(1)]
    sees = healthy(*rows, here=cards(2))
    assert len(drained(plan(full(*rows, now=canary), sees=sees))) == 1
    deaf = changed(sees, probes={rows[0].id: Probe(ready=True)})
    assert drained(plan(full(*rows, now=canary), sees=deaf)) == [rows[1].id]
    neither = changed(sees, probes={})
    assert drained(plan(full(*rows, now=canary), sees=neither)) == []


def test_paused_nobody_gives_way_and_what_gave_way_comes_back():
    item = full(old(0), vacated(1), now=rollout(base=2, paused=True), asked=2)
    result = plan(item, sees=healthy(item.replicas[0], here=cards(2)))
    assert [action.replica.revision for action in result.actions] == [1]
    assert (
        drained(plan(full(old(0), now=rollout(paused=True)), sees=healthy(old(0), here=cards(1))))
        == []
    )


def test_what_is_given_up_in_this_moment_costs_nobody_anything():
    item = full(old(0), old(1), failed(0, revision=2, created_at=NOW - 5, ready_at=None), asked=2)
    result = plan(item, sees=healthy(*item.replicas[:2], here=cards(2)))
    assert [name for name, _ in done(result)] == ["Advance"]
    assert {hold.kind for hold in result.holds} == {"swap"}
    assert "is given up for revision 1" in result.holds[0].reason


def test_recreate_ends_all_of_them_before_the_first_new_one_comes():
    now = rollout(base=2, strategy=S.RECREATE)
    item = full(old(0), old(1), now=now)
    result = plan(item, sees=healthy(*item.replicas, here=cards(4)))
    assert (len(drained(result)), launched(result)) == (2, [])
    assert result.actions[0].reason == (
        "makes room for revision 2: all of the earlier ones go first (recreate)"
    )
    rest = full(old(0, state=DRAINING), now=now, asked=2)
    sees = healthy(*rest.replicas, here=cards(4), in_flight={rest.replicas[0].id: 1})
    held = plan(rest, sees=sees)
    assert held.actions == ()
    assert words(held)[0] == (0, "swap", "recreate: 1 earlier replicas have to end first")


def test_a_swap_that_was_asked_for_swaps_although_there_is_room():
    for options in ({"strategy": S.BUFFERED_SWAP}, {"max_surge": 0}):
        item = full(old(0), now=rollout(base=1, **options))
        result = plan(item, sees=healthy(*item.replicas, here=cards(2)))
        assert (len(drained(result)), launched(result)) == (1, [])


# The room comes back, or not, and is nobody else's.


def vacated(slot=0, at=NOW - 2, **values):
    """Return a replica that gave way."""
    values = {"id": f"gave-way-{slot}", "finished_at": at, "placement": on_gpu(slot)} | values
    return replica(slot, ReplicaState.STOPPED, **values)


def test_room_that_is_not_back_is_waited_for_and_its_holder_named():
    item = full(vacated(), asked=1)
    sees = healthy(here=cards(1), strangers={"GPU-0": 8 * GIB}, stranger_pids={"GPU-0": (7,)})
    (hold,) = plan(item, sees=sees).holds
    assert (hold.kind, hold.until) == ("swap", NOW + 58)
    assert hold.reason == "waits until the room that was made for it is really free"
    assert hold.details == (
        "GPU-0 (NVIDIA T4): 8.0 GiB in use by processes that are not prsmd's: pid 7",
    )


def test_what_is_not_back_after_a_minute_is_somebody_elses_and_nobody_else_gives_way_for_it():
    item = full(vacated(at=NOW - 9, created_at=NOW - 500), old(1, 1), now=rollout(base=2), asked=2)
    sees = healthy(item.replicas[1], here=cards(2), strangers={"GPU-0": 8 * GIB})
    late = plan(item, sees=sees, now=NOW + 52)
    assert late.actions == ()
    assert {hold.kind for hold in late.holds} == {"unplaceable"}


def waiting(**values):
    """Return another deployment that has waited for a GPU for longer."""
    return deployment(id="deploy_b", created_at=0.5, resources=ONE_GPU, **values)


@pytest.mark.parametrize("phase", [RolloutPhase.REPLACING, RolloutPhase.ROLLED_BACK])
def test_room_that_a_rollout_gave_up_is_not_taken_by_another_deployment(phase):
    """Neither while the new replica backs off, nor on the way back."""
    crashed = failed(0, revision=2, placement=on_gpu(0), at=NOW, created_at=NOW - 5)
    item = full(vacated(at=NOW - 6), changed(crashed, ready_at=NOW - 3), asked=1)
    if phase is RolloutPhase.ROLLED_BACK:
        ended = changed(item.rollout, phase=phase, finished_at=NOW)
        stable = changed(item.deployment, revision=1)
        item = changed(
            item, rollout=ended, deployment=stable, revision=item.others[0], others=(item.revision,)
        )
    result = plan(item, waiting(), sees=healthy(here=cards(1)))
    assert launched(result) == ([] if phase is RolloutPhase.REPLACING else ["deploy_a"])
    (hold,) = [hold for hold in result.holds if hold.deployment_id == "deploy_b"]
    assert hold.kind == "unplaceable"


def test_what_a_rollout_did_not_take_back_after_a_minute_is_anybodys():
    item = full(vacated(), asked=1, resources=TWO_GPUS)
    sees = healthy(here=cards(1))
    assert launched(plan(item, waiting(), sees=sees)) == []
    assert launched(plan(item, waiting(), sees=sees, now=NOW + 58)) == ["deploy_b"]


def test_what_is_not_wanted_any_more_is_kept_for_nobody():
    idle = full(vacated(), now=rollout(base=1), asked=1)
    idle = changed(idle, deployment=changed(idle.deployment, asked_replicas=0))
    assert launched(plan(idle, waiting(), sees=healthy(here=cards(1)))) == ["deploy_b"]
    ended = rollout(RolloutPhase.COMPLETED, base=1)
    done_with = full(vacated(), failed(0, revision=2, at=NOW), now=ended, asked=1)
    assert launched(plan(done_with, waiting(), sees=healthy(here=cards(1)))) == ["deploy_b"]


def test_what_the_new_one_needs_beside_the_room_that_is_made_is_kept_as_well():
    """Two GPUs, one of them free: whoever takes that one lets the other go for nothing."""
    item = full(old(0), resources=TWO_GPUS)
    result = plan(item, waiting(), sees=healthy(*item.replicas, here=cards(2)))
    assert (drained(result), launched(result)) == ([item.replicas[0].id], [])
    halved = full(replica(0, placement=on_gpu(0, millis=500)), resources=ONE_GPU)
    half = deployment(id="deploy_b", resources=HALF_GPU)
    result = plan(halved, half, sees=healthy(*halved.replicas, here=cards(1)))
    assert (len(drained(result)), launched(result)) == (1, [])


# Which of the two revisions is filled.


def test_before_its_image_is_here_the_earlier_revision_is_kept_whole():
    item = rolling(replica(0), now=rollout(RolloutPhase.PREPARING), asked=2)
    result = plan(item, sees=healthy(*item.replicas))
    assert [one.replica.revision for one in result.actions if isinstance(one, Launch)] == [1]
    assert drained(result) == []


def test_a_tag_that_still_means_the_same_drains_nobody():
    rows = [replica(0), replica(1)]
    item = rolling(*rows, now=rollout(RolloutPhase.PREPARING, prepared=True), asked=2)
    same = changed(item, revision=changed(item.others[0], number=2))
    assert drained(plan(same, sees=healthy(*rows))) == []
    assert launched(plan(same, sees=healthy(*rows))) == []


def test_with_nothing_that_serves_the_stable_one_comes_before_what_is_on_trial():
    item = full(now=rollout(TRYING, strategy=S.BLUE_GREEN, base=0), asked=1)
    result = plan(item, sees=healthy(here=cards(1)))
    assert [one.replica.revision for one in result.actions if isinstance(one, Launch)] == [1]


def test_a_canary_that_backs_off_keeps_its_room_from_the_stable_one():
    crashed = failed(0, revision=2, placement=on_gpu(0), at=NOW, created_at=NOW - 5)
    crashed = changed(crashed, ready_at=NOW - 3)
    canary = rollout(TRYING, strategy=S.CANARY, base=2)
    item = full(crashed, old(1), now=canary, asked=3)
    result = plan(item, sees=healthy(item.replicas[1], here=cards(2)))
    assert launched(result) == []
    assert [hold.kind for hold in result.holds] == ["backoff", "unplaceable"]


def test_as_many_as_may_exist_at_once_and_no_more():
    item = rolling(replica(0), now=rollout(base=1, max_surge=1), asked=3, resources=SMALL)
    result = plan(item, sees=healthy(*item.replicas))
    assert len(launched(result)) == 3
    assert words(result) == []
    one_more = rollout(base=3, max_surge=1)
    more = rolling(*(replica(slot) for slot in range(3)), now=one_more, asked=3)
    result = plan(more, sees=healthy(*more.replicas))
    assert len(launched(result)) == 1
    reason = "at most 4 replicas exist at once during this rollout"
    assert words(result) == [(1, "surge", reason), (2, "surge", reason)]


def test_after_a_rollback_what_was_given_up_makes_room_at_once():
    """It gets no traffic while a better one serves, so it has no reason to hold a GPU."""
    ended = rollout(RolloutPhase.ROLLED_BACK, base=2, finished_at=NOW)
    item = full(old(0), new(1, placement=on_gpu(1)), now=ended)
    item = changed(item, revision=item.others[0], others=(item.revision,))
    item = changed(item, deployment=changed(item.deployment, revision=1))
    result = plan(item, sees=healthy(*item.replicas, here=cards(2)))
    assert done(result) == [("Drain", "deploy_a-r2-s1")]
    assert result.actions[0].reason == "revision 1 is wanted instead"
    alone = changed(item, replicas=item.replicas[1:])
    only_bad = plan(alone, sees=healthy(*alone.replicas, here=cards(2)))
    assert drained(only_bad) == []
