"""What is made of the helper's lines, without a helper."""

from collections.abc import Mapping
from typing import Any

import pytest

from prsmd.devices.nvml_reading import KnownGpus, fault_in_words
from prsmd.devices.xid import CRITICAL_XIDS, unhealthy_by_recovery, unhealthy_by_xid


def line(*gpus: Mapping[str, Any], xids: tuple[tuple[str, int], ...] = ()) -> dict[str, Any]:
    return {"driver": "580.65.06", "gpus": gpus, "xids": xids}


def gpu(uuid: str = "GPU-a", index: int = 0, **other: Any) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "index": index,
        "name": "NVIDIA T4",
        "total": 100,
        "used": 40,
        "processes": [[7, 30, "python"]],
        **other,
    }


def lost(uuid: str = "GPU-a", index: int = 0) -> dict[str, Any]:
    return {"uuid": uuid, "index": index, "name": "", "fault": [15, "GPU is lost"]}


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 63, 68, 94, 109, 154])
def test_an_xid_of_an_application_leaves_the_gpu_healthy(xid: int) -> None:
    assert unhealthy_by_xid(xid) is None


@pytest.mark.parametrize("xid", sorted(CRITICAL_XIDS))
def test_a_critical_xid_is_named_with_its_number_and_meaning(xid: int) -> None:
    reason = unhealthy_by_xid(xid)
    assert reason is not None
    assert reason.startswith(f"XID {xid}: {CRITICAL_XIDS[xid]}")


@pytest.mark.parametrize(("action", "asks"), [(None, False), (0, False), (1, True), (3, False)])
def test_only_recovery_actions_that_stop_work_make_a_gpu_unhealthy(
    action: int | None, *, asks: bool
) -> None:
    assert (unhealthy_by_recovery(action) is not None) is asks


def test_an_error_of_the_driver_that_has_no_words_keeps_its_number_and_text() -> None:
    assert fault_in_words(999, "Unknown Error") == "NVML error 999: Unknown Error"


def test_a_missing_gpu_keeps_its_place_by_uuid_and_loses_its_processes() -> None:
    known = KnownGpus()
    known.take(line(gpu("GPU-a", 0), gpu("GPU-b", 1)), 1.0)
    sample = known.take(line(gpu("GPU-b", 0)), 2.0)
    assert [g.uuid for g in sample.gpus] == ["GPU-b", "GPU-a"]
    missing = sample.gpus[1]
    assert (missing.memory_total_bytes, missing.processes) == (100, ())
    assert missing.unhealthy == "the driver no longer reports this GPU"
    assert known.incomplete


def test_a_gpu_that_comes_back_is_healthy_again() -> None:
    known = KnownGpus()
    known.take(line(gpu()), 1.0)
    known.take(line(), 2.0)
    sample = known.take(line(gpu()), 3.0)
    assert [(g.uuid, g.unhealthy) for g in sample.gpus] == [("GPU-a", None)]
    assert not known.incomplete


def test_a_known_gpu_that_cannot_be_opened_is_listed_once() -> None:
    known = KnownGpus()
    known.take(line(gpu("GPU-a", 0)), 1.0)
    sample = known.take(line(lost("index-0", 0)), 2.0)
    assert [g.uuid for g in sample.gpus] == ["GPU-a"]


def test_a_gpu_that_could_not_be_opened_is_forgotten_under_that_name_once_it_can() -> None:
    known = KnownGpus()
    known.take(line(lost("index-0", 0)), 1.0)
    sample = known.take(line(gpu("GPU-a", 0)), 2.0)
    assert [(g.uuid, g.unhealthy) for g in sample.gpus] == [("GPU-a", None)]


def test_xids_are_kept_over_a_loss_and_bounded() -> None:
    known = KnownGpus()
    known.take(line(gpu(), xids=tuple(("GPU-a", number) for number in range(200, 230))), 1.0)
    known.take(line(gpu(), xids=(("GPU-a", 79),)), 2.0)
    sample = known.take(line(lost()), 3.0)
    assert len(sample.gpus[0].xid_errors) == 16
    assert sample.gpus[0].xid_errors[-1] == 79
    assert "GPU is lost" in (sample.gpus[0].unhealthy or "")


def test_a_critical_xid_is_remembered_after_many_harmless_ones() -> None:
    known = KnownGpus()
    known.take(line(gpu(), xids=(("GPU-a", 48),)), 1.0)
    sample = known.take(line(gpu(), xids=(("GPU-a", 31),) * 40), 2.0)
    assert "XID 48" in (sample.gpus[0].unhealthy or "")
