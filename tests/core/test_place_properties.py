"""What holds for every placement: nothing is sold twice, and a refusal is true and explained."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.capacity import reserve
from prsmd.core.filters import STRANGERS_TOLERANCE_BYTES
from prsmd.core.place import place
from prsmd.core.plan import Unplaceable
from prsmd.domain.quantity import GIB, MIB
from prsmd.domain.spec import Resources
from tests.core.cases import capacity, gpu, replica
from tests.support.examples import examples

SIZES = st.integers(0, 64).map(lambda quarters: quarters * GIB // 4)


@st.composite
def gpus(draw):
    count = draw(st.integers(0, 4))
    cards = []
    for index in range(count):
        parent = draw(st.sampled_from([None, None, None, "GPU-0"])) if index else None
        cards.append(
            gpu(
                index,
                total=draw(st.sampled_from([8, 15, 24])) * GIB,
                unhealthy=draw(st.sampled_from([None, None, None, "XID 79"])),
                mig_parent=parent,
            )
        )
    return tuple(cards)


@st.composite
def rooms(draw):
    cards = draw(gpus())
    strangers = {card.uuid: draw(st.sampled_from([0, 0, 300 * MIB, 4 * GIB])) for card in cards}
    return capacity(
        *cards,
        cpu=draw(st.integers(1, 8)) * 1000,
        memory=draw(st.integers(1, 32)) * GIB,
        strangers=strangers,
    )


REQUESTS = st.builds(
    Resources,
    cpu_millis=st.sampled_from([100, 500, 1000, 3000]),
    memory_bytes=st.sampled_from([GIB // 2, GIB, 6 * GIB]),
    gpu_millis=st.sampled_from([0, 100, 250, 300, 500, 1000, 2000, 3000]),
    gpu_memory_bytes=st.none() | SIZES,
)
# A step is a request, or the place in the list of a replica to let go.
STEPS = st.lists(REQUESTS | st.integers(0, 5), max_size=20)


def play(room, steps):
    """Place and release as told; yield the capacity and the verdict on each request."""
    held, count = [], 0
    for step in steps:
        now = reserve(room, held)
        if isinstance(step, int):
            del held[step : step + 1]
            continue
        verdict = place(step, now)
        yield now, step, verdict
        if not isinstance(verdict, Unplaceable):
            count += 1
            held.append(replica(id=f"r{count}", placement=verdict))


def kept(room):
    """Tell whether nothing on the node is reserved beyond what it has. Independent of the code."""
    placed = room.reservations
    assert sum(p.cpu_millis for p in placed) <= room.cpu_millis
    assert sum(p.memory_bytes for p in placed) <= room.memory_bytes
    for card in room.gpus:
        here = [p for p in placed if card.uuid in p.gpu_uuids]
        assert sum(p.gpu_millis for p in here) <= 1000
        reserved = sum(p.gpu_memory_bytes for p in here)
        assert not here or reserved + room.strangers[card.uuid] <= card.memory_total_bytes
        assert not (here and card.unhealthy)
        assert not (here and card.uuid in {other.mig_parent for other in room.gpus})


def fits_somewhere(asked, room):
    """Try every set of GPUs by brute force, from the rules as the documentation states them."""
    if sum(p.cpu_millis for p in room.reservations) + asked.cpu_millis > room.cpu_millis:
        return False
    if sum(p.memory_bytes for p in room.reservations) + asked.memory_bytes > room.memory_bytes:
        return False
    sets = itertools.combinations(room.gpus, -(-asked.gpu_millis // 1000))
    return any(all(card_takes(asked, card, room) for card in cards) for cards in sets)


def card_takes(asked, card, room):
    here = [p for p in room.reservations if card.uuid in p.gpu_uuids]
    if card.unhealthy or any(other.mig_parent == card.uuid for other in room.gpus):
        return False
    strangers = room.strangers[card.uuid]
    free = card.memory_total_bytes - strangers - sum(p.gpu_memory_bytes for p in here)
    if asked.gpu_millis >= 1000:
        alone = not here and strangers <= STRANGERS_TOLERANCE_BYTES
        return alone and free >= (asked.gpu_memory_bytes or 0)
    if asked.gpu_memory_bytes is None:
        wanted = card.memory_total_bytes * asked.gpu_millis // 1000
    else:
        wanted = asked.gpu_memory_bytes
    return sum(p.gpu_millis for p in here) + asked.gpu_millis <= 1000 and wanted <= free


@given(rooms(), STEPS)
@examples(150)
def test_reservations_never_exceed_anything_whatever_comes_and_goes(room, steps):
    for now, _, verdict in play(room, steps):
        kept(now)
        if not isinstance(verdict, Unplaceable):
            kept(reserve(now, [replica(id="new", placement=verdict)]))


@given(rooms(), STEPS)
@examples(150)
def test_a_request_is_placed_exactly_when_it_fits_somewhere(room, steps):
    for now, asked, verdict in play(room, steps):
        assert fits_somewhere(asked, now) == (not isinstance(verdict, Unplaceable)), verdict


@given(rooms(), STEPS)
def test_what_is_placed_is_what_was_asked(room, steps):
    for now, asked, verdict in play(room, steps):
        if isinstance(verdict, Unplaceable):
            continue
        assert verdict.node == now.node
        assert verdict.cpu_millis == asked.cpu_millis
        assert verdict.memory_bytes == asked.memory_bytes
        assert len(set(verdict.gpu_uuids)) == len(verdict.gpu_uuids) == asked.gpu_count
        if asked.gpu_count:
            assert verdict.gpu_memory_bytes >= (asked.gpu_memory_bytes or 0)
            assert verdict.gpu_millis == min(asked.gpu_millis, 1000)


@given(rooms(), STEPS)
def test_every_refusal_is_explained_once_for_each_gpu(room, steps):
    for now, asked, verdict in play(room, steps):
        if not isinstance(verdict, Unplaceable):
            continue
        assert verdict.summary.removeprefix("insufficient resources: ")
        assert verdict.reasons
        assert all(reason.strip() for reason in verdict.reasons)
        lines = [reason for reason in verdict.reasons if reason.startswith("GPU-")]
        assert len(lines) == (len(now.gpus) if asked.gpu_count else 0)
        refused = [line for line in lines if not line.endswith("has room")]
        if len(lines) - len(refused) < asked.gpu_count and lines:
            assert f"{len(refused)} of {len(lines)} GPUs refused" in verdict.summary


@given(rooms(), REQUESTS)
def test_unknown_gpus_never_get_anything_and_never_stop_what_needs_none(room, asked):
    blind = capacity(
        *room.gpus,
        cpu=room.cpu_millis,
        memory=room.memory_bytes,
        strangers=room.strangers,
        gpus_unknown="no fresh sample",
    )
    verdict = place(asked, blind)
    if asked.gpu_count:
        assert isinstance(verdict, Unplaceable)
    else:
        assert verdict == place(asked, room)
