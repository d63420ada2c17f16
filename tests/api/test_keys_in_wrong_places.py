"""A key that a client puts where none belongs is in no log and no record, whoever reads them."""

import json
import re
from pathlib import Path

from prsmd.api.app import OPERATIONS
from tests.api.conftest import SETTINGS
from tests.support.daemon import Daemon, running_daemon

_PARAMETER = re.compile(r"\{[^}]+\}")


def records(daemon: Daemon) -> str:
    """Every record of every log."""
    found = []
    for log in ("changes", "denials", "inferences"):
        page = daemon.call("GET", f"/v1/audit?log={log}&limit=100").json
        while page["records"]:
            found += page["records"]
            query = f"/v1/audit?log={log}&limit=100&offset={len(found)}"
            page = daemon.call("GET", query).json if page["has_more"] else {"records": []}
    return json.dumps(found)


def test_a_key_in_a_path_a_name_or_a_request_id_is_not_kept(tmp_path: Path) -> None:
    settings = {**SETTINGS, "daemon.log_level": '"debug"'}
    with running_daemon(tmp_path, settings) as daemon:
        owner, viewer = daemon.key("owner", "acme"), daemon.key("viewer", "acme")
        secret = owner.split("_")[2]
        for operation in OPERATIONS:
            path = _PARAMETER.sub(owner, operation.path)
            if path != operation.path:
                body = None if operation.method == "GET" else {}
                for key in (None, viewer):
                    daemon.call(operation.method, f"{path}?x={owner}", body, key=key)
        for name in ("X-Request-ID", "X-PRSMD-Organization", "Idempotency-Key"):
            daemon.call("GET", "/v1/models", headers={name: owner})
        daemon.call("GET", f"/{owner.replace('_', '%5F')}")
        made = {"name": owner, "role": "viewer"}
        daemon.call("POST", "/v1/api-keys", made, key=viewer)
        daemon.call("POST", "/v1/api-keys", made, headers={"X-Request-ID": owner})
        said = records(daemon)

        assert secret not in daemon.log
        assert secret not in said
        assert f"prsm_{owner.split('_')[1]}_***" in daemon.log
        assert f"prsm_{owner.split('_')[1]}_***" in said
        for log in ("changes", "denials"):
            assert daemon.call("GET", f"/v1/audit/verify?log={log}").json["whole"]
