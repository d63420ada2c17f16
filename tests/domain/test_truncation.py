"""What others say is stored within bounds, and what was cut says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.domain.truncation import (
    MOST_MESSAGE_BYTES,
    MOST_TAIL_BYTES,
    TAIL_LINES,
    truncated,
    truncated_tail,
)

ANY_TEXT = st.text(st.characters(), max_size=40)  # surrogates too
LINES = st.lists(st.builds(lambda text, times: text * times, ANY_TEXT, st.integers(0, 200)))


def size(*texts):
    return sum(len(text.encode()) for text in texts)


def test_what_fits_stays_as_it_is():
    text = "é" * (MOST_MESSAGE_BYTES // 2)
    assert truncated(text) == text


@pytest.mark.parametrize("letter", ["x", "é", "語", "😀"])
def test_what_is_longer_is_cut_between_characters_and_says_so(letter):
    cut = truncated(letter * 100_000)
    assert cut.rstrip("…") == letter * len(cut[:-1])
    assert cut.endswith("…")
    assert MOST_MESSAGE_BYTES - 3 <= size(cut) <= MOST_MESSAGE_BYTES


def test_a_lone_surrogate_can_be_stored():
    assert truncated("a\ud800b") == "a?b"
    assert size(truncated("\udfff" * 5000)) <= MOST_MESSAGE_BYTES


def test_the_last_lines_of_a_tail_stay_and_the_oldest_that_does_not_fit_is_cut():
    lines = ["older", "a" * 3000, "b" * 2000]
    first, second = truncated_tail(lines)
    assert first == "a" * (MOST_TAIL_BYTES - 2000 - 3) + "…"
    assert second == lines[-1]


def test_a_tail_has_so_many_lines_at_most():
    assert truncated_tail([str(number) for number in range(50)]) == tuple(
        str(number) for number in range(50 - TAIL_LINES, 50)
    )


def test_one_endless_line_leaves_a_bounded_tail():
    [line] = truncated_tail(["older", "x" * 16_384])
    assert line.endswith("x…")
    assert size(line) == MOST_TAIL_BYTES


@given(LINES)
def test_whatever_was_logged_is_bounded_and_bounding_it_again_changes_nothing(lines):
    tail = truncated_tail(lines)
    assert size(*tail) <= MOST_TAIL_BYTES
    assert len(tail) <= TAIL_LINES
    assert truncated_tail(tail) == tail
    if lines:
        assert tail[-1][:1] == truncated(lines[-1])[:1]
