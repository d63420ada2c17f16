"""GPU memory that is not ours: what is counted where the driver tells much, little or nothing."""

from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.strangers import DRIVER_BASELINE_BYTES, strangers_memory, strangers_pids
from prsmd.domain.node import GpuProcess
from prsmd.domain.quantity import GIB, MIB
from tests.core.cases import gpu

OURS = frozenset({1, 2})


def on(*processes, used):
    card = gpu(used=used, processes=tuple(GpuProcess(pid=p, memory_bytes=m) for p, m in processes))
    return strangers_memory([card], OURS)["GPU-0"]


def test_an_idle_gpu_has_no_strangers_though_the_driver_itself_uses_memory():
    assert on(used=DRIVER_BASELINE_BYTES) == 0


def test_foreign_processes_are_summed_and_ours_are_not():
    assert on((1, 4 * GIB), (7, GIB), (8, 2 * GIB), used=8 * GIB) == 3 * GIB


def test_only_our_processes_means_no_strangers_whatever_the_driver_adds():
    assert on((1, 4 * GIB), used=6 * GIB) == 0


def test_our_process_without_a_size_does_not_make_us_strangers_to_ourselves():
    assert on((1, None), used=6 * GIB) == 0


def test_use_without_any_visible_process_is_strangers_beyond_the_drivers_own():
    assert on(used=5 * GIB) == 5 * GIB - DRIVER_BASELINE_BYTES


def test_a_foreign_process_without_a_size_has_what_nobody_else_explains():
    rest = 10 * GIB - 4 * GIB - GIB - DRIVER_BASELINE_BYTES
    assert on((1, 4 * GIB), (7, GIB), (8, None), used=10 * GIB) == GIB + rest


def test_a_driver_that_reports_less_used_than_its_processes_never_makes_it_negative():
    assert on((7, None), (1, 4 * GIB), used=GIB) == 0


def test_every_gpu_is_named_also_the_quiet_ones():
    cards = [gpu(0), gpu(1, used=2 * GIB, processes=(GpuProcess(pid=7, memory_bytes=GIB),))]
    assert strangers_memory(cards, frozenset()) == {"GPU-0": 0, "GPU-1": GIB}


@given(
    st.lists(st.tuples(st.integers(1, 6), st.none() | st.integers(0, 8 * GIB)), max_size=5),
    st.integers(0, 15 * GIB),
    st.frozensets(st.integers(1, 6)),
)
def test_it_is_never_negative_and_never_more_than_what_is_used_or_listed(processes, used, own):
    listed = tuple(GpuProcess(pid=p, memory_bytes=m) for p, m in processes)
    found = strangers_memory([gpu(used=used, processes=listed)], own)["GPU-0"]
    foreign = sum(m or 0 for p, m in processes if p not in own)
    assert foreign <= found <= max(foreign, used)


@given(st.integers(0, 15 * GIB), st.integers(0, 2048))
def test_owning_a_process_never_raises_what_strangers_have(used, mib):
    card = gpu(used=used, processes=(GpuProcess(pid=5, memory_bytes=mib * MIB),))
    ours = strangers_memory([card], frozenset({5}))["GPU-0"]
    assert ours <= strangers_memory([card], frozenset())["GPU-0"]


def test_strangers_are_numbered_the_largest_first():
    card = gpu(
        processes=(
            GpuProcess(pid=5, memory_bytes=MIB, name="python3"),
            GpuProcess(pid=6, memory_bytes=GIB, name="Xorg"),
            GpuProcess(pid=7, memory_bytes=None),
            GpuProcess(pid=8, memory_bytes=GIB, name="ours"),
        )
    )
    assert strangers_pids([card], frozenset({8}))["GPU-0"] == (6, 5, 7)
