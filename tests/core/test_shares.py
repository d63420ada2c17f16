"""How many replicas of either revision there are at each point of a rollout: a table, then laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.shares import Room, Share, Tally, canary_weight, share_out
from prsmd.domain.rollout import RolloutPhase, RolloutStrategy
from tests.core.situations import PREPARING, REPLACING, TRYING, rollout

NEVER, NEEDED, FIRST = Room.NEVER, Room.WHERE_NEEDED, Room.FIRST
S = RolloutStrategy


def shared(now, target=4, coming=0, settled=0):
    return share_out(now, Tally(target=target, coming=coming, settled=settled))


CASES = {
    "no rollout": (None, (0, 0), Share(coming=4, kept=4)),
    "no rollout, two have taken over": (None, (2, 2), Share(coming=4, kept=2)),
    "one that ended": (rollout(RolloutPhase.ABORTED), (1, 1), Share(coming=4, kept=3)),
    "preparing": (rollout(PREPARING), (0, 0), Share(coming=0, kept=4, refilled=4, room=NEVER)),
    "preparing what runs already": (
        rollout(PREPARING),
        (4, 4),
        Share(coming=4, kept=0, refilled=0, room=NEVER),
    ),
    "preparing what runs in part": (
        rollout(PREPARING),
        (1, 1),
        Share(coming=1, kept=3, refilled=3, room=NEVER),
    ),
    "auto": (rollout(), (0, 0), Share(coming=4, kept=4, limit=8)),
    "auto, one has settled": (rollout(), (2, 1), Share(coming=4, kept=3, limit=8)),
    "auto, fewer at once": (rollout(max_surge=1), (0, 0), Share(coming=4, kept=4, limit=5)),
    "auto, none beside": (
        rollout(max_surge=0),
        (0, 0),
        Share(coming=4, kept=4, limit=4, room=FIRST),
    ),
    "surge": (rollout(strategy=S.SURGE), (1, 1), Share(coming=4, kept=3, limit=8, room=NEVER)),
    "swap": (
        rollout(strategy=S.BUFFERED_SWAP),
        (1, 1),
        Share(coming=4, kept=3, limit=4, room=FIRST),
    ),
    "recreate": (rollout(strategy=S.RECREATE), (0, 0), Share(coming=4, kept=4, room=Room.ALL)),
    "paused": (
        rollout(paused=True),
        (2, 1),
        Share(coming=2, kept=3, refilled=2, limit=8, room=NEVER),
    ),
    "paused before anything came": (
        rollout(paused=True, strategy=S.RECREATE),
        (0, 0),
        Share(coming=0, kept=4, refilled=4, room=NEVER),
    ),
    "a canary of 10 %": (
        rollout(TRYING, strategy=S.CANARY),
        (0, 0),
        Share(coming=1, kept=4, refilled=3),
    ),
    "a canary of 50 %": (
        rollout(TRYING, strategy=S.CANARY, step=1),
        (1, 1),
        Share(coming=2, kept=4, refilled=2),
    ),
    "a canary set to all by hand": (
        rollout(TRYING, strategy=S.CANARY, weight=100),
        (1, 1),
        Share(coming=4, kept=4, refilled=0, room=NEVER),
    ),
    "a canary set to nothing by hand": (
        rollout(TRYING, strategy=S.CANARY, weight=0),
        (1, 1),
        Share(coming=1, kept=4, refilled=3),
    ),
    "blue and green": (
        rollout(TRYING, strategy=S.BLUE_GREEN),
        (4, 4),
        Share(coming=4, kept=4, refilled=4, room=NEVER),
    ),
    "blue and green, switched": (
        rollout(TRYING, strategy=S.BLUE_GREEN, step=1),
        (4, 4),
        Share(coming=4, kept=4, refilled=0, room=NEVER),
    ),
    "shadow": (
        rollout(TRYING, strategy=S.SHADOW),
        (0, 0),
        Share(coming=1, kept=4, refilled=4, room=NEVER),
    ),
    "a trial that was promoted": (
        rollout(REPLACING, strategy=S.CANARY),
        (1, 1),
        Share(coming=4, kept=3, limit=8),
    ),
}


@pytest.mark.parametrize(("now", "there", "share"), CASES.values(), ids=CASES.keys())
def test_each_point_of_a_rollout_has_its_share(now, there, share):
    assert shared(now, 4, *there) == share


def test_a_single_replica_has_one_beside_it_at_most_and_no_canary_in_its_place():
    assert shared(rollout(), target=1).limit == 2
    canary = shared(rollout(TRYING, strategy=S.CANARY), target=1)
    assert (canary.coming, canary.room) == (1, NEVER)


def test_the_canary_goes_on_at_its_last_step_however_often_it_is_asked():
    last = rollout(TRYING, strategy=S.CANARY, steps=(5, 20), step=7)
    assert canary_weight(last) == 20


ROLLOUTS = st.builds(
    rollout,
    st.sampled_from([PREPARING, TRYING, REPLACING]),
    strategy=st.sampled_from(S),
    max_surge=st.sampled_from([None, 0, 1, 9]),
    paused=st.booleans(),
    step=st.integers(0, 3),
    weight=st.sampled_from([None, 0, 50, 100]),
)
TALLIES = st.integers(0, 6).flatmap(
    lambda target: st.integers(0, 8).flatmap(
        lambda coming: st.builds(
            Tally,
            target=st.just(target),
            coming=st.just(coming),
            settled=st.integers(0, min(target, coming)),
        )
    )
)


@given(ROLLOUTS, TALLIES)
def test_what_can_serve_never_falls_below_the_target(now, tally):
    if now.phase is TRYING and not now.options.strategy.on_trial:
        return
    share = share_out(now, tally)
    assert share.kept + tally.settled >= tally.target
    assert 0 <= share.coming <= tally.target
    assert share.refilled <= tally.target


@given(ROLLOUTS, TALLIES)
def test_until_the_image_is_here_and_while_paused_nothing_comes_and_nothing_gives_way(now, tally):
    halted = now.phase is PREPARING or (now.paused and now.phase is REPLACING)
    if not halted:
        return
    share = share_out(now, tally)
    assert share.coming == min(tally.coming, tally.target)
    assert share.room is NEVER
