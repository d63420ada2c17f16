"""A daemon that is started while its disk is full serves the models that run."""

from tests.api.conftest import small
from tests.daemon.conftest import PROCESS
from tests.support.daemon import Daemon, running_daemon
from tests.support.small_disks import fill, mounted


def new_key(daemon: Daemon) -> int:
    """Return the status of a change."""
    return daemon.call("POST", "/v1/api-keys", {"name": "k", "role": "viewer"}).status


def test_a_daemon_that_is_started_on_a_full_disk_serves_and_recovers(tmp_path):
    with mounted(tmp_path / "state", 12) as disk, running_daemon(tmp_path, PROCESS) as daemon:
        deployment = daemon.deploy(small("a-model"))
        daemon.until_ready(deployment, 1)
        replica = daemon.infer("custom_a_model").json["metadata"]["replica_id"]
        fill(disk / "ballast")
        daemon.until("a refused write", lambda: new_key(daemon) == 507)
        for end in (daemon.stop, daemon.kill):
            end()
            fill(disk / "ballast")
            daemon.start()
            daemon.until("an answer", lambda: daemon.infer("custom_a_model").status == 200)
            assert new_key(daemon) == 507

        (disk / "ballast").unlink()
        daemon.until("room", lambda: daemon.call("GET", "/readyz").status == 200)
        assert new_key(daemon) == 201
        answered = daemon.infer("custom_a_model").json["metadata"]["replica_id"]
        assert answered == replica, "it was adopted, not replaced"


def test_a_daemon_without_a_model_starts_on_a_full_disk_too(tmp_path):
    with mounted(tmp_path / "state", 12) as disk, running_daemon(tmp_path, PROCESS) as daemon:
        fill(disk / "ballast")
        daemon.until("a refused write", lambda: new_key(daemon) == 507)
        daemon.kill()
        daemon.start()
        assert new_key(daemon) == 507
