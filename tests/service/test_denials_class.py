"""Every denial goes the one way on which it is counted: a use case cannot write one by itself."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2] / "prsmd"
ALLOWED = {"service/caller.py", "service/failures.py", "engine/denials.py"}


def test_no_use_case_writes_a_denial_by_itself():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        name, text = str(path.relative_to(ROOT)), path.read_text()
        denies = re.search(r'record\([^)]*"denied"|outcome="denied"', text)
        if denies and name not in ALLOWED:
            wrong.append(name)
    assert wrong == []


def test_callers_are_made_where_they_are_given_the_log_of_denials():
    made = [
        str(path.relative_to(ROOT))
        for path in sorted(ROOT.rglob("*.py"))
        if re.search(r"(?<![\w.])Caller\(", path.read_text())
    ]
    assert made == ["api/app.py"]
    assert "denials=door.denials" in (ROOT / "api/app.py").read_text()
