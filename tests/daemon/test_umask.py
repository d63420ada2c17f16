"""What the daemon makes is its own, whatever umask it was started with."""

import os

from prsmd.settings import DaemonSection, Settings
from prsmd.store.db import Database
from prsmd.strictness import findings
from tests.api.conftest import small
from tests.daemon.conftest import PROCESS
from tests.support.daemon import running_daemon


def test_what_the_daemon_makes_is_its_own_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        with running_daemon(tmp_path, PROCESS) as daemon:
            daemon.deploy(small("a-model"))
            state = tmp_path / "state"
            daemon.until("a run", lambda: list(state.glob("runs/*/process.json")))
            made = [path for path in state.rglob("*") if "scratch" not in path.parts]
            assert state / "audit-public-keys.pem" in made
            assert [path for path in (state, *made) if path.lstat().st_mode & 0o022] == []
            daemon.stop()
            found = findings(Settings(daemon=DaemonSection(state_dir=state)), [])
            assert [each.words for each in found if str(state) in each.words] == []
            daemon.start()
    finally:
        os.umask(before)


async def test_so_are_the_folders_above_the_state(tmp_path):
    before = os.umask(0)
    try:
        await (await Database.open(tmp_path / "made" / "here" / "state")).close()
    finally:
        os.umask(before)
    for folder in ("made", "made/here", "made/here/state"):
        assert (tmp_path / folder).stat().st_mode & 0o022 == 0
