"""Where a replica goes and what a refusal says: tables of single decisions."""

import pytest

from prsmd.core.capacity import capacity_of, reserve
from prsmd.core.filters import STRANGERS_TOLERANCE_BYTES
from prsmd.core.place import place
from prsmd.core.plan import Unplaceable
from prsmd.domain.quantity import GIB, MIB
from prsmd.domain.replica import Placement, ReplicaState
from prsmd.domain.spec import Resources
from tests.core.cases import (
    HALF_GPU,
    ONE_GPU,
    SMALL,
    capacity,
    changed,
    gpu,
    node,
    observed,
    replica,
)


def on(*uuids, millis=1000, memory=15 * GIB, cpu=1000):
    return Placement(
        node="here",
        cpu_millis=cpu,
        memory_bytes=GIB,
        gpu_uuids=uuids,
        gpu_millis=millis,
        gpu_memory_bytes=memory,
    )


def holding(placement, name="other"):
    return replica(id=name, placement=placement)


def chosen(resources, room):
    placed = place(resources, room)
    assert isinstance(placed, Placement), placed
    return placed.gpu_uuids


def refusal(resources, room):
    refused = place(resources, room)
    assert isinstance(refused, Unplaceable), refused
    return refused


def test_a_cpu_replica_reserves_what_it_asked_for_and_no_gpu():
    assert place(SMALL, capacity(gpu())) == Placement(
        node="here", cpu_millis=1000, memory_bytes=GIB
    )


def test_cpu_is_reserved_to_the_last_millicore():
    room = capacity(cpu=4000, reservations=(on(cpu=3000),))
    assert isinstance(place(SMALL, room), Placement)
    two = changed(SMALL, cpu_millis=2000)
    assert refusal(two, room) == Unplaceable(
        summary="insufficient resources: cpu", reasons=("node: 3 of 4 cpu reserved, 2 asked",)
    )


def test_memory_is_refused_with_what_is_free():
    room = capacity(memory=4 * GIB, reservations=(on(), on()))
    refused = refusal(changed(SMALL, memory_bytes=3 * GIB), room)
    assert refused.reasons == ("node: 2.0 of 4.0 GiB memory free is less than 3.0 GiB asked",)


def test_every_limit_of_the_node_that_is_exceeded_is_named():
    greedy = changed(ONE_GPU, cpu_millis=9000, memory_bytes=64 * GIB)
    assert refusal(greedy, capacity()).summary == "insufficient resources: cpu, memory, GPUs"


def test_a_whole_gpu_reserves_all_its_memory():
    placed = place(ONE_GPU, capacity(gpu()))
    assert (placed.gpu_uuids, placed.gpu_millis) == (("GPU-0",), 1000)
    assert placed.gpu_memory_bytes == 15 * GIB


def test_two_whole_gpus_are_two_different_ones_with_the_memory_of_the_smaller():
    two = changed(ONE_GPU, gpu_millis=2000)
    placed = place(two, capacity(gpu(0), gpu(1, total=24 * GIB)))
    assert (placed.gpu_uuids, placed.gpu_millis) == (("GPU-0", "GPU-1"), 1000)
    assert placed.gpu_memory_bytes == 15 * GIB


def test_a_whole_gpu_is_never_sold_twice():
    room = reserve(capacity(gpu()), [holding(on("GPU-0"), "model-r1-s0-a")])
    assert refusal(ONE_GPU, room) == Unplaceable(
        summary="insufficient resources: 1 of 1 GPUs refused",
        reasons=("GPU-0 (NVIDIA T4): reserved whole by model-r1-s0-a",),
    )


def test_a_gpu_that_is_shared_is_not_sold_as_whole_and_a_whole_one_not_shared():
    shared = reserve(capacity(gpu()), [holding(on("GPU-0", millis=250, memory=GIB))])
    assert "0.25 of it reserved by other, 1 asked" in refusal(ONE_GPU, shared).reasons[0]
    whole = reserve(capacity(gpu()), [holding(on("GPU-0", memory=0))])
    assert "reserved whole by other" in refusal(HALF_GPU, whole).reasons[0]


def test_shares_of_one_gpu_never_exceed_it():
    room = capacity(gpu(), reservations=(on("GPU-0", millis=700, memory=GIB),))
    assert "0.7 of it reserved, 0.5 asked" in refusal(HALF_GPU, room).reasons[0]
    third = changed(HALF_GPU, gpu_millis=300)
    assert isinstance(place(third, room), Placement)


def test_a_share_takes_its_part_of_the_memory_unless_it_says_how_much():
    assert place(HALF_GPU, capacity(gpu())).gpu_memory_bytes == 15 * GIB // 2
    asks = changed(HALF_GPU, gpu_memory_bytes=10 * GIB)
    assert place(asks, capacity(gpu())).gpu_memory_bytes == 10 * GIB


def test_a_share_is_refused_where_its_memory_is_reserved_already():
    room = capacity(gpu(), reservations=(on("GPU-0", millis=100, memory=8 * GIB),))
    assert "7.0 of 15.0 GiB free is less than 7.5 GiB asked" in refusal(HALF_GPU, room).reasons[0]


def test_a_share_goes_on_the_fullest_gpu_that_has_room():
    room = capacity(
        gpu(0),
        gpu(1),
        gpu(2),
        reservations=(
            on("GPU-1", millis=250, memory=GIB),
            on("GPU-2", millis=900, memory=GIB),
        ),
    )
    assert chosen(HALF_GPU, room) == ("GPU-1",)


def test_whole_gpus_are_those_with_the_least_strangers_then_the_lowest_index():
    room = capacity(gpu(2), gpu(1), gpu(0), strangers={"GPU-0": 100 * MIB})
    assert chosen(ONE_GPU, room) == ("GPU-1",)
    assert chosen(changed(ONE_GPU, gpu_millis=3000), room) == ("GPU-1", "GPU-2", "GPU-0")


def test_strangers_within_the_tolerance_do_not_spoil_a_whole_gpu():
    room = capacity(gpu(), strangers={"GPU-0": STRANGERS_TOLERANCE_BYTES})
    assert place(ONE_GPU, room).gpu_memory_bytes == 15 * GIB - STRANGERS_TOLERANCE_BYTES


def test_a_whole_gpu_is_refused_where_strangers_work():
    room = capacity(gpu(), strangers={"GPU-0": 3 * GIB + 100 * MIB})
    reason = "GPU-0 (NVIDIA T4): 3.1 GiB in use by processes that are not prsmd's"
    assert refusal(ONE_GPU, room).reasons == (reason,)


def test_a_share_lives_with_strangers_while_its_memory_is_free():
    room = capacity(gpu(), strangers={"GPU-0": 7 * GIB})
    assert chosen(HALF_GPU, room) == ("GPU-0",)
    refused = refusal(HALF_GPU, changed(room, strangers={"GPU-0": 8 * GIB}))
    assert refused.reasons[0].endswith(
        "7.0 of 15.0 GiB free is less than 7.5 GiB asked"
        " (8.0 GiB in use by processes that are not prsmd's)"
    )


def test_a_whole_gpu_that_is_too_small_is_refused_with_both_sizes():
    asks = changed(ONE_GPU, gpu_memory_bytes=16 * GIB)
    room = capacity(gpu(), strangers={"GPU-0": 200 * MIB})
    assert "14.8 of 15.0 GiB free is less than 16.0 GiB asked" in refusal(asks, room).reasons[0]
    assert chosen(asks, capacity(gpu(0), gpu(1, total=24 * GIB))) == ("GPU-1",)


def test_a_refusal_by_a_hair_does_not_contradict_itself_by_rounding():
    asks = changed(ONE_GPU, gpu_memory_bytes=15 * GIB + 1)
    reason = refusal(asks, capacity(gpu())).reasons[0]
    assert reason.endswith(f"{15 * GIB} of {15 * GIB} bytes free is less than {15 * GIB + 1} asked")


def test_each_gpu_has_its_line_and_those_with_room_say_so():
    three = changed(ONE_GPU, gpu_millis=3000)
    sick = gpu(2, unhealthy="XID 79: fell off the bus", uuid="GPU-1f2e3d4c-5566")
    room = capacity(gpu(0), gpu(1), sick, strangers={"GPU-1": 8 * GIB})
    assert refusal(three, room) == Unplaceable(
        summary="insufficient resources: 2 of 3 GPUs refused, 3 asked",
        reasons=(
            "GPU-0 (NVIDIA T4): has room",
            "GPU-1 (NVIDIA T4): 8.0 GiB in use by processes that are not prsmd's",
            "GPU-1f2e3d4c… (NVIDIA T4): unhealthy: XID 79: fell off the bus",
        ),
    )


def test_a_gpu_that_is_split_is_refused_and_its_mig_devices_are_not():
    parent, part = gpu(0), gpu(1, uuid="MIG-1", mig_parent="GPU-0", total=5 * GIB)
    assert chosen(ONE_GPU, capacity(parent, part)) == ("MIG-1",)
    two = refusal(changed(ONE_GPU, gpu_millis=2000), capacity(parent, part))
    assert two.reasons[0] == "GPU-0 (NVIDIA T4): split into MIG devices"


@pytest.mark.parametrize("resources", [ONE_GPU, HALF_GPU])
def test_unknown_gpus_refuse_gpu_requests_and_no_others(resources):
    room = capacity(gpu(), gpus_unknown="no fresh sample: the driver does not answer")
    refused = refusal(resources, room)
    assert refused.summary == "insufficient resources: GPUs"
    why = "node: GPUs are unknown: no fresh sample: the driver does not answer"
    assert refused.reasons == (why,)
    assert isinstance(place(SMALL, room), Placement)


def test_a_machine_without_gpus_says_so():
    assert refusal(ONE_GPU, capacity()).reasons == ("node: there is no GPU",)


def test_capacity_counts_active_replicas_only_and_knows_who_holds_what():
    one = holding(on("GPU-0"), "one")
    over = changed(holding(on("GPU-1"), "over"), state=ReplicaState.STOPPED)
    seen = capacity_of(observed(here=node(gpu(0), gpu(1))), [one, over])
    assert seen.reservations == (one.placement,)
    assert seen.holders == {"GPU-0": ("one",)}
    assert seen.gpus_unknown is None


def test_a_reason_names_holders_in_the_same_order_however_the_rows_come():
    rows = [holding(on("GPU-0", millis=500, memory=0), name) for name in ("b", "a")]
    sees = observed(here=node(gpu()))
    orders = [refusal(HALF_GPU, capacity_of(sees, order)) for order in (rows, rows[::-1])]
    assert orders[0] == orders[1]
    assert "1 of it reserved by a, b, 0.5 asked" in orders[0].reasons[0]


def test_a_reason_names_to_an_organization_only_what_is_its_own():
    whole = [
        changed(holding(on("GPU-0", millis=500, memory=0), name), organization=owner)
        for name, owner in (("mine", "acme"), ("secret", "rival"), ("hidden", "third"))
    ]
    free = capacity_of(observed(here=node(gpu())), whole)
    seen = {}
    for asker in ("acme", "rival", "fourth", None):
        verdict = place(ONE_GPU, free, asker)
        assert isinstance(verdict, Unplaceable)
        seen[asker] = verdict.reasons[0]
    assert "reserved by another organization, mine, 1 asked" in seen["acme"]
    assert "reserved by another organization, secret, 1 asked" in seen["rival"]
    assert seen["fourth"].endswith("reserved whole by another organization")
    assert "reserved by hidden, mine, secret, 1 asked" in seen[None]


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ({"stale_since": 5.0}, "no fresh sample: the driver does not answer"),
        ({"stale_since": 5.0, "error": "NVML hangs"}, "no fresh sample: NVML hangs"),
    ],
)
def test_stale_telemetry_makes_the_gpus_unknown(sample, words):
    assert capacity_of(observed(here=node(gpu(), **sample)), []).gpus_unknown == words


def test_no_driver_is_said_in_its_own_words():
    seen = capacity_of(observed(here=node(supported=False, error="no NVIDIA driver")), [])
    assert refusal(ONE_GPU, seen).reasons == ("node: GPUs are unknown: no NVIDIA driver",)


def test_what_strangers_use_reaches_placement():
    seen = capacity_of(observed(here=node(gpu()), strangers={"GPU-0": 5 * GIB}), [])
    assert refusal(ONE_GPU, seen).reasons[0].endswith("not prsmd's")


def test_a_request_for_no_more_than_the_defaults_needs_no_gpu_memory():
    odd = Resources(cpu_millis=1, memory_bytes=1, gpu_millis=0, gpu_memory_bytes=99 * GIB)
    assert place(odd, capacity(gpu())).gpu_memory_bytes == 0
