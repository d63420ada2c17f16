"""What every suite shares: the private Docker engine, registries and whole daemons.

Says too which tests are slow, and which stay together when several processes share the work.
"""

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.support.places import Places, order_of

if TYPE_CHECKING:
    from xdist.remote import Producer

# In the background of a shell this process ignores SIGINT, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says nothing on a busy machine. The profile of `scripts/test --fast`
# tries a tenth of them.
hypothesis.settings.register_profile("whole", hypothesis.settings(), deadline=None)
hypothesis.settings.register_profile("fast", hypothesis.settings(), deadline=None, max_examples=10)
if hypothesis.settings.get_current_profile_name() == "default":  # there is another one under CI
    hypothesis.settings.load_profile("whole")

pytest_plugins = [
    "tests.support.engine_fixtures",
    "tests.support.podman",
    "tests.support.registry_fixtures",
    "tests.support.daemon_fixtures",
]
_TESTS = Path(__file__).parent
# Directories and beginnings of names: daemons, processes, sockets, simulated worlds, campaigns.
_SLOW = (
    *("api/", "daemon/", "devices/", "e2e/", "engine/", "examples/", "gateway/", "limits/"),
    *("store/", "systemd/", "cli/test_cli_apply_real.py", "core/test_meter_properties.py"),
    *("core/test_reconcile_world.py", "core/test_rollout_world.py", "runtime/test_contract.py"),
    *("runtime/test_process", "sdk/test_sdk_lifetime.py", "sdk/test_sdk_transports.py"),
    *("service/test_proof", "test_architecture.py", "test_bench_", "test_load_generator.py"),
    *("test_reloadable.py", "test_strictness.py", "test_systemd_seam.py", "test_auditing.py"),
    *("core/test_transcript.py", "core/test_delegation.py", "service/test_change_turns.py"),
    *("service/test_image_costs.py", "service/test_pages.py", "service/test_share_costs.py"),
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import the slow tests where they are left out."""
    if "not slow" in config.option.markexpr and _is_slow(collection_path):
        return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow tests, and share out the longest ones first."""
    for item in items:
        if _is_slow(item.path):
            item.add_marker(pytest.mark.slow)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: order_of(item.nodeid))


def _is_slow(path: Path) -> bool:
    name = path.relative_to(_TESTS).as_posix() if path.is_relative_to(_TESTS) else ""
    return f"{name}/".startswith(_SLOW)


def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> Places:
    """Share the tests out by what they need."""
    return Places(config, log)
