"""Every deadline whose passing is held against somebody is judged; the others say why they are not.

A deadline that passes while the daemon, its machine or the engine stands still is no evidence
(core/stalls.py). A new one has to be named here: as judged, or with why nobody is blamed.
"""

import ast
from pathlib import Path

import prsmd

ROOT = Path(prsmd.__file__).parent
CALLS = {"asyncio.timeout", "asyncio.timeout_at", "asyncio.wait_for", "aiohttp.ClientTimeout"}
JUDGED = "judged"
A_PAUSE = "how long it waits for news before it looks again"
ENGINE = "the caller hears that the engine does not answer; nothing is concluded from it"
CALLER = "a caller's own patience, or what a caller must send: no model or engine is blamed"
OWN = "the daemon's own shutdown or bookkeeping"
DEADLINES = {
    "engine/prober.py": JUDGED,
    "engine/observer.py": JUDGED,
    "gateway/passage.py": JUDGED,
    "gateway/shadow.py": JUDGED,
    "gateway/upstream.py": JUDGED,
    "devices/nvml.py": JUDGED,
    "engine/capture.py": "the last log lines are given up, not the replica: it has ended already",
    "engine/fan_out.py": A_PAUSE,
    "engine/lessor.py": A_PAUSE,
    "engine/reconciler.py": A_PAUSE,
    "store/writer.py": "the transaction is rolled back and its caller told to try again",
    "gateway/infer.py": OWN,
    "daemon.py": OWN,
    "signals.py": OWN,
    "runtime/docker_connection.py": ENGINE,
    "runtime/process.py": ENGINE,
    "gateway/meters.py": CALLER,
    "service/settling.py": CALLER,
    "service/rehearsals.py": "a forecast says that the registry did not tell",
    "service/oidc.py": "the keys known before are used on",
    "service/underway.py": "a credential's own end",
    "service/borrowing.py": "the end of a loan",
}
JUDGES = ("unknown(", "judge")


def _has_deadline(path: Path) -> bool:
    tree = ast.parse(path.read_text())
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(
        ast.unparse(call.func) in CALLS
        or (
            ast.unparse(call.func) == "asyncio.wait"
            and any(word.arg == "timeout" for word in call.keywords)
        )
        for call in calls
    )


def _modules() -> dict[str, Path]:
    found = {str(path.relative_to(ROOT)): path for path in ROOT.rglob("*.py")}
    outside = ("api/", "cli/")  # what clients must keep to, and a client itself
    return {name: path for name, path in found.items() if not name.startswith(outside)}


def test_every_deadline_is_judged_or_says_why_not() -> None:
    there = {name for name, path in _modules().items() if _has_deadline(path)}
    assert there - DEADLINES.keys() == set(), "name it, and who is blamed when it passes"
    assert DEADLINES.keys() - there == set(), "it is gone"


def test_what_is_named_as_judged_asks_the_judge() -> None:
    for name, how in DEADLINES.items():
        if how == JUDGED:
            text = (ROOT / name).read_text()
            assert any(word in text for word in JUDGES), name
