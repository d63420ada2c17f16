"""What takes long to write is written beside the loop."""

import threading
from pathlib import Path

import pytest

from prsmd.api import monitoring
from tests.api.served import served
from tests.engine.harness import Life, World


async def test_measurements_are_written_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def write(_registry: object) -> bytes:
        threads.append(threading.current_thread())
        return b"{}"

    monkeypatch.setattr(monitoring, "generate_latest", write)
    world = World(tmp_path / "state")
    await world.start()
    async with world.life() as life:
        await _scrape(life, tmp_path)
    await world.server.close()
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def _scrape(life: Life, folder: Path) -> None:
    async with served(life, folder) as door, door.session.get("http://localhost/metrics") as answer:
        assert answer.status == 200
