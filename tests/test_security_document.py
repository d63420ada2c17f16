"""The table of threats names for each row the tests that show it, and those are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
TABLE = TEXT.partition("| attempt | stopped by | shown by |")[2].partition("\n\n")[0]
ROWS = [line.strip("|").split("|") for line in TABLE.splitlines()[2:]]


def test_the_table_is_found():
    assert len(ROWS) > 15


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip()[:40])
def test_each_row_is_shown_by_tests_that_are_there(row):
    _, _, shown = row
    named = re.findall(r"`([\w/]+\.py)`", shown)
    assert named
    for path in named:
        source = (ROOT / "tests" / path).read_text(encoding="utf-8")
        assert re.search(r"^(async )?def test_", source, re.MULTILINE), path
