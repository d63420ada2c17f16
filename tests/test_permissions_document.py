"""docs/permissions.md says what the tables say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_document_is_what_the_tables_say():
    check = [sys.executable, str(ROOT / "scripts" / "permissions.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
