"""Members of an object are found as they stand in the text, and what is no JSON is never taken."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.protocols import json_members
from prsmd.protocols.json_members import Members, NotJsonError, members
from tests.support.examples import examples
from tests.support.steps import done

NAMES = ("inputs", "parameters")
SMALL_STEP = 40  # bytes; the same cuts as in megabytes, in texts that a test can make
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=90), st.text(alphabet='\\"\n\u00e9\U0001f600ab', max_size=60),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=12), st.dictionaries(st.text(max_size=9), inner, max_size=8)
    ),
    max_leaves=60,
)


@contextlib.contextmanager
def step_of(size: int) -> Iterator[None]:
    before, json_members.STEP_BYTES = json_members.STEP_BYTES, size
    try:
        yield
    finally:
        json_members.STEP_BYTES = before


def gone_through(text: bytes, step: int = SMALL_STEP) -> Members:
    """What comes of all steps."""
    with step_of(step):
        return done(members(bytearray(text), NAMES))


def found(text: bytes, step: int = SMALL_STEP) -> dict[str, bytes]:
    """The members that were asked for, as bytes."""
    return {name: bytes(view) for name, view in gone_through(text, step).found.items()}


def is_json(text: bytes) -> bool:
    """Whether an independent parser takes it."""
    try:
        text.decode()
        msgspec.json.decode(text, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return False
    return True


def pairs_of(text: bytes) -> Any:
    return json.loads(text, object_pairs_hook=lambda pairs: pairs)


@examples(60)
@given(
    inputs=VALUES,
    parameters=VALUES,
    indent=st.sampled_from([None, 0, 3, "\t"]),
    ascii_only=st.booleans(),
    turned=st.booleans(),
    step=st.integers(40, 400),
)
def test_every_member_is_found_as_it_stands(
    inputs, parameters, indent, ascii_only, turned, step
) -> None:
    pair = [("inputs", inputs), ("parameters", parameters)]
    written = {
        name: json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
        for name, value in pair
    }
    names = [*reversed(written)] if turned else [*written]
    text = b" {\n" + b" ,\t".join(b'"%s" : %s' % (n.encode(), written[n]) for n in names) + b"\r}\n"

    assert found(text, step=step) == written


@examples(150)
@given(data=st.data(), value=VALUES, ascii_only=st.booleans(), step=st.integers(40, 200))
def test_what_is_taken_is_json_and_what_is_json_is_taken(data, value, ascii_only, step) -> None:
    """A valid text with a few bytes changed, taken out or put in: both parsers agree on it."""
    text = bytearray(json.dumps({"inputs": value}, ensure_ascii=ascii_only).encode())
    odd = st.sampled_from([*b'"\\[]{},: 0x\n\0\xff-e.u'])
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        how = data.draw(st.sampled_from(["set", "cut", "put"]))
        if how == "cut":
            del text[at : at + data.draw(st.integers(1, 3))]
        elif how == "set":
            text[at] = data.draw(odd)
        else:
            text.insert(at, data.draw(odd))
    changed = bytes(text)
    try:
        taken = found(changed, step=step)
    except NotJsonError:
        assert not is_json(changed) or not _plain(changed)
        return
    assert is_json(changed)
    assert {name: pairs_of(view) for name, view in taken.items()} == {
        name: inner for name, inner in pairs_of(changed) if name in NAMES
    }


SPACINGS = [(",", ":"), (", ", ": "), (" , ", " : "), (",", ": ")]


@examples(150)
@given(
    members_of=st.lists(
        st.tuples(st.sampled_from([*NAMES, "inputs", "a", 'a"', "\u00e9", "\\", ""]), VALUES),
        max_size=5,
    ),
    spacing=st.sampled_from(SPACINGS),
    inner=st.sampled_from(SPACINGS),
    ascii_only=st.booleans(),
    end=st.sampled_from(["", "\n", " x"]),
)
def test_short_or_step_by_step_the_same_is_found(
    members_of, spacing, inner, ascii_only, end
) -> None:
    comma, colon = spacing
    text = comma.join(
        json.dumps(name, ensure_ascii=ascii_only)
        + colon
        + json.dumps(value, ensure_ascii=ascii_only, separators=inner)
        for name, value in members_of
    )
    text = "{" + text + "}" + end

    assert _come_to(text.encode(), step=40_000) == _come_to(text.encode(), step=40)


def _come_to(text: bytes, step: int) -> object:
    try:
        all_of_it = gone_through(text, step)
    except NotJsonError:
        return None
    found_here = {name: bytes(view) for name, view in all_of_it.found.items()}
    return found_here, all_of_it.others, all_of_it.repeated


@pytest.mark.parametrize("spacing", SPACINGS[:2])
def test_what_programs_write_takes_the_short_way(spacing) -> None:
    value = {"inputs": {"text": "hello", "more": [1, 2]}, "parameters": {"top": 0.5}, "user": "u"}
    text = json.dumps(value, separators=spacing).encode()

    assert list(members(text, NAMES)) == []
    assert json_members._members_of_short(text, NAMES) is not None


def _plain(text: bytes) -> bool:
    """Whether it is an object whose top-level names can be written."""
    value = msgspec.json.decode(text, type=msgspec.Raw)
    if not bytes(value).strip().startswith(b"{"):
        return False
    try:
        "".join(name for name, _ in pairs_of(text)).encode()
    except (ValueError, RecursionError):
        return False
    return True


WRONG = {
    "empty": b"",
    "blank": b"  ",
    "no object": b"[]",
    "a string": b'"inputs"',
    "cut off": b'{"inputs": [1,',
    "cut off in a string": b'{"inputs": "' + b"a" * 100,
    "cut off after an escape": b'{"inputs": "\\',
    "two values": b'{"inputs":1} {}',
    "NaN": b'{"inputs": NaN}',
    "Infinity": b'{"inputs": [-Infinity]}',
    "leading zero": b'{"inputs": 01}',
    "plus": b'{"inputs": +1}',
    "trailing comma": b'{"inputs": [' + b"1," * 100 + b"]}",
    "trailing comma outside": b'{"inputs": 1,}',
    "double comma": b'{"inputs": [' + b"1," * 50 + b"," + b"1," * 50 + b"1]}",
    "wrong bracket": b'{"inputs": [' + b"1," * 50 + b'{"a":[' + b"1," * 50 + b"1}]}]}",
    "name without a value": b'{"inputs": {' + b'"a":1,' * 50 + b'"b"}}',
    "not UTF-8": b'{"inputs": "\xff\xfe"}',
    "cut character": b'{"inputs": "\xc3"}',
    "surrogate in UTF-8": b'{"inputs": "\xed\xa0\x80"}',
    "half a character": b'{"inputs": "\\ud800 "}',
    "control character": b'{"inputs": "' + b"a" * 100 + b"\n" + b"a" * 100 + b'"}',
    "wrong escape": b'{"inputs": "' + b"a" * 100 + b"\\x" + b"a" * 100 + b'"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "comment": b'{"inputs": 1 /* one */}',
    "vertical tab": b'{"inputs":\x0b1}',
    "no-break space": b'{"inputs":\xc2\xa01}',
    "numbers parted by blanks": b'{"inputs": [1' + b" " * 200 + b"2]}",
    "deep": b'{"inputs": ' + b"[1," * 501 + b"1" + b"]" * 501 + b"}",
    "deep objects": b'{"inputs": ' + b'{"a":' * 100_000,
    "never closed": b"[" * 200_000,
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("step", [SMALL_STEP, json_members.STEP_BYTES])
def test_what_is_no_json_object_is_refused(text, step) -> None:
    with pytest.raises(NotJsonError):
        found(text, step=step)


RIGHT = {
    "nothing": b"{}",
    "nothing but blanks": b" { \n} ",
    "null": b'{"inputs": null}',
    "an escaped name": b'{"in\\u0070uts": 1}',
    "beyond floats": b'{"inputs": 1e999}',
    "many digits": b'{"inputs": ' + b"9" * 900 + b"}",
    "a name twice inside": b'{"inputs": {"a": 1, "a": 2}}',
    "brackets in strings": b'{"inputs": ["]}", {"}]": "[["}, "\\"]}"]}',
    "backslashes": b'{"inputs": "' + b"\\\\" * 300 + b'"}',
    "quotes": b'{"inputs": ["' + b'\\"' * 300 + b'"]}',
    "characters of two halves": b'{"inputs": "' + b"\\ud83d\\ude00" * 300 + b'"}',
    "deep enough": b'{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}",
    "blanks": b'{"inputs": [1' + b" \n" * 300 + b", 2]}",
}


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT.keys())
@pytest.mark.parametrize("step", [SMALL_STEP, 41, 47, json_members.STEP_BYTES])
def test_what_is_json_is_taken_as_it_stands(text, step) -> None:
    taken = found(text, step=step)

    assert all(view in text for view in taken.values())
    assert {name: json.loads(view) for name, view in taken.items()} == json.loads(text)


def test_other_members_are_named_and_checked_all_the_same() -> None:
    taken = gone_through(b'{"a": [1, {"b": 2}], "inputs": 3, "param\\u0065ter": "x"}')
    assert (list(taken.others), taken.repeated) == (["a", "parameter"], None)
    assert bytes(taken.found["inputs"]) == b"3"
    with pytest.raises(NotJsonError):
        found(b'{"a": [1, {"b": 02}], "inputs": 3}')
    with pytest.raises(NotJsonError, match="members"):
        found(b"{" + b'"a": 1,' * 1001 + b'"inputs": 1}')


@pytest.mark.parametrize("again", [b"inputs", b"\\u0069nputs"])
@pytest.mark.parametrize("value", [b"1", b"2", b"[1]"])
def test_a_member_that_stands_twice_is_told(again, value) -> None:
    taken = gone_through(b'{"inputs": 1, "%s": %s}' % (again, value))

    assert taken.repeated == "inputs"
    assert bytes(taken.found["inputs"]) == value


def test_a_large_text_is_gone_through_in_many_steps() -> None:
    text = bytearray(b'{"inputs": [' + b"1," * 500_000 + b"1]}")
    steps = sum(1 for _ in members(text, NAMES))

    assert steps >= len(text) // json_members.STEP_BYTES - 1
