"""Finds the members of a large JSON object, as bytes: all of it is checked, nothing of it is built.

It goes in steps of a bounded size, so that whoever drives it can let others have their turn between
them. A step ends after a comma between two values: what came since the last one, with the brackets
opened before it and closed after it, is JSON by itself, and is checked as such.
"""

import codecs
import dataclasses
import json
import re
from collections.abc import Collection, Generator, Mapping, Sequence
from typing import TypeVar

import msgspec

T = TypeVar("T")
Steps = Generator[None, None, T]
"""What gives way after each bounded step, and comes to a T in the end."""
Text = bytes | bytearray | memoryview

STEP_BYTES = 32 * 1024
DEEPEST = 500
_MOST_MEMBERS = 1000
_MOST_OTHERS = 21
_OPENING, _BRACKETS = b"[{", b"[]{}"
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(_BRACKETS)))
_BLANKS = b" \t\n\r"
_OPEN = re.compile(rb"[ \t\n\r]{0,65536}+\{[ \t\n\r]{0,65536}+")
_NAME = re.compile(
    rb'("(?:[^"\\\x00-\x1f]|\\.){0,1000}+")[ \t\n\r]{0,65536}+:[ \t\n\r]{0,65536}+', re.DOTALL
)
_NEXT = re.compile(rb"[ \t\n\r]{0,65536}+(?:,[ \t\n\r]{0,65536}+|(\})[ \t\n\r]{0,65536}+)")
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]{1,1000}+")
_TOKEN = re.compile(rb'"[^"]*+"?|[\[\]{}]')
_SECOND_HALF = re.compile(rb"\\u[dD][c-fC-F]")  # of a character, in two escapes
_LONGEST_ESCAPE = 12  # of a character in two halves
_TAIL = 64
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ROUNDS = 8


class NotJsonError(ValueError):
    """The text is not JSON, or it is deeper or odder than is taken."""


class NotAnObjectError(NotJsonError):
    """The text is JSON, and no object."""


@dataclasses.dataclass(frozen=True, slots=True)
class Members:
    """What an object has: the members that were asked for, each as it stands in the text.

    `others` are the first names that were not asked for, `repeated` is one of those that were and
    stands twice (of such the last counts).
    """

    found: Mapping[str, memoryview]
    others: Sequence[str]
    repeated: str | None


def members(text: bytes | bytearray, names: Collection[str]) -> Steps[Members]:
    """Return the members of these names that a JSON object has; all of the text is checked.

    Raises:
        NotJsonError: it is not one JSON object in UTF-8, or has more members than any would.
    """
    short = _members_of_short(text, names)
    if short is not None:
        return short
    yield from _check_utf8(text)
    places: dict[str, tuple[int, int]] = {}
    others: list[str] = []
    repeated: str | None = None
    begin = _OPEN.match(text)
    if begin is None:
        yield from _check_whole(text)
        raise NotAnObjectError("it is not an object")
    at, closed = _after(text, begin.end(), first=True)
    for _ in range(_MOST_MEMBERS):
        if closed:
            break
        name, at = _name(text, at)
        end = yield from _value(text, at)
        if name in names:
            repeated = name if name in places else repeated
            places[name] = at, end
        elif len(others) < _MOST_OTHERS:
            others.append(name)
        at, closed = _after(text, end)
    if not closed:
        raise NotJsonError(f"it has more than {_MOST_MEMBERS} members")
    if at != len(text):
        raise NotJsonError(f"something follows it (byte {at})")
    found = {name: memoryview(text)[at:end] for name, (at, end) in places.items()}
    return Members(found, others, repeated)


def _members_of_short(text: bytes | bytearray, names: Collection[str]) -> Members | None:
    """Return the members of a short object that is written as programs do; None: look closer.

    It is ASCII with one way of spacing, no name stands twice and none has an escape: then writing
    again what was read gives the same text, and so the members' places.
    """
    if len(text) > STEP_BYTES or not text.isascii() or sum(map(text.count, _OPENING)) > DEEPEST:
        return None
    try:
        values = _OBJECT.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not 0 < len(values) <= _MOST_OTHERS:
        return None
    first = len(next(iter(values))) + 4  # after the brace, two quotes and the colon
    blank = b" " if text[first : first + 1] == b" " else b""
    places: dict[str, tuple[int, int]] = {}
    parts: list[bytes | msgspec.Raw] = []
    at = 0
    for name, value in values.items():
        before = b'%s"%s":%s' % (b"," + blank if parts else b"{", name.encode(), blank)
        begin = at + len(before)
        at = begin + memoryview(value).nbytes
        places[name] = begin, at
        parts += before, value
    parts.append(b"}")
    if b"".join(parts) != text.rstrip(_BLANKS):
        return None
    view = memoryview(text)
    found = {name: view[begin:end] for name, (begin, end) in places.items() if name in names}
    return Members(found, [name for name in places if name not in names], None)


def _after(text: bytes | bytearray, end: int, *, first: bool = False) -> tuple[int, bool]:
    """Return where the next member begins, or what follows the object, and whether it is closed."""
    follows = _NEXT.match(text, end)
    if first and (follows is None or not follows[1]):
        return end, False  # there is a member, before which no comma stands
    if follows is None:
        raise NotJsonError(f"expected ',' or '}}' (byte {end})")
    return follows.end(), bool(follows[1])


def _check_utf8(text: bytes | bytearray) -> Steps[None]:
    if text.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for at in range(0, len(text), STEP_BYTES):
        _decode(decoder, bytes(text[at : at + STEP_BYTES]), final=at + STEP_BYTES >= len(text))
        yield


def _decode(decoder: codecs.IncrementalDecoder, piece: bytes, *, final: bool) -> None:
    try:
        decoder.decode(piece, final)
    except UnicodeDecodeError:
        raise NotJsonError("it is not UTF-8") from None


def _check_whole(text: bytes | bytearray) -> Steps[None]:
    """Raise NotJsonError where the text is not one JSON value."""
    begin = len(text) - len(text.lstrip(_BLANKS))
    end = yield from _value(text, begin)
    if text[end:].strip(_BLANKS):
        raise NotJsonError(f"something follows it (byte {end})")


def _name(text: bytes | bytearray, at: int) -> tuple[str, int]:
    found = _NAME.match(text, at)
    if found is None:
        raise NotJsonError(f"expected a name and ':' (byte {at})")
    try:
        name = json.loads(found[1])
        name.encode()
    except ValueError:
        raise NotJsonError(f"the name at byte {at} is malformed") from None
    return str(name), found.end()


def _value(text: bytes | bytearray, start: int) -> Steps[int]:
    """Return where the value ends that starts here, having checked all of it."""
    first = text[start : start + 1]
    if first and first in b'[{"':
        return (yield from _Walk(text, start).steps())
    scalar = _SCALAR.match(text, start)
    if scalar is None:
        raise NotJsonError(f"expected a value (byte {start})")
    _check(scalar[0], start)
    return scalar.end()


class _Walk:
    """The way through one string, array or object, step by step.

    `kept` are the parts of the text since the last comma that a step ended at, without the insides
    of long strings, which are checked by themselves; `context` are the brackets open there.
    """

    def __init__(self, text: bytes | bytearray, start: int) -> None:
        self._text = text
        self._at = self._piece = start
        self._in_string = False
        self._stack = bytearray()
        self._context = b""
        self._kept: list[bytes] = []
        if text[start] == ord('"'):
            self._at, self._in_string = start + 1, True

    def steps(self) -> Steps[int]:
        """Return where the value ends."""
        while True:
            end = self._step()
            if end is not None:
                return end
            yield

    def _step(self) -> int | None:
        chunk = self._chunk()
        last = self._at + len(chunk) >= len(self._text)
        if self._in_string and b'"' not in chunk:
            self._pass_inside(chunk, last=last)
            return None
        if self._in_string and not self._stack:
            return self._ended(self._at + chunk.index(b'"') + 1)
        if not self._in_string and not last and not chunk.strip(_BLANKS):
            self._pass_blanks(chunk)
            return None
        parts = chunk.split(b'"')
        cut = None if last else self._cut(parts)
        if cut is not None:
            chunk = chunk[: cut - self._at]
        brackets = b"".join(parts[self._in_string :: 2]).translate(None, _NO_BRACKETS)
        ended = self._follow(brackets)
        if ended is not None:
            return self._ended(self._at + _place(chunk, ended, in_string=self._in_string) + 1)
        if last:
            raise NotJsonError("it is cut off")
        if cut is not None:
            self._check_until(cut)
            self._in_string = False
        else:
            self._at += len(chunk)
            self._in_string ^= len(parts) % 2 == 0
        return None

    def _chunk(self) -> bytes:
        """Return what comes next, with what is escaped blotted out, and no escape cut in two."""
        end = self._at + STEP_BYTES
        chunk = bytes(self._text[self._at : end])
        if b"\\" not in chunk:
            return chunk
        chunk = chunk.replace(b"\\\\", b"\0\0")
        if end < len(self._text) and b"\\" in chunk[-_LONGEST_ESCAPE:]:
            chunk = self._before_escape(chunk)
        return chunk.replace(b'\\"', b"\0\0")

    def _before_escape(self, chunk: bytes) -> bytes:
        """Return a chunk without its last escape, which may go on after it, or be half of one."""
        at = chunk.rfind(b"\\")
        while at > len(chunk) - _TAIL:
            if _SECOND_HALF.match(self._text, self._at + at) is None:
                return chunk[:at]
            at = chunk.rfind(b"\\", 0, at)
        return chunk  # nothing but second halves, which is not JSON

    def _pass_inside(self, chunk: bytes, *, last: bool) -> None:
        """Check a part of a string that has neither its beginning nor its end, and leave it out."""
        if last:
            raise NotJsonError("it is cut off")
        end = self._at + len(chunk)
        _check(b'"' + bytes(self._text[self._at : end]) + b'"', self._at)
        if self._piece < self._at:
            self._kept.append(bytes(self._text[self._piece : self._at]))
        self._piece = self._at = end

    def _pass_blanks(self, chunk: bytes) -> None:
        """Leave out blanks but for one: what stands before and after them is not to touch."""
        self._kept.append(bytes(self._text[self._piece : self._at]) + b" ")
        self._piece = self._at = self._at + len(chunk)

    def _cut(self, parts: list[bytes]) -> int | None:
        """Return where the last comma between values ends; take out of `parts` what follows it."""
        after = 0
        for at in range(len(parts) - 1, -1, -1):
            comma = parts[at].rfind(b",") if at % 2 == self._in_string else -1
            if comma >= 0:
                total = sum(map(len, parts)) + len(parts) - 1
                cut = total - after - (len(parts[at]) - comma - 1)
                parts[at] = parts[at][: comma + 1]
                del parts[at + 1 :]
                return self._at + cut
            after += len(parts[at]) + 1
        return None

    def _follow(self, brackets: bytes) -> int | None:
        """Open and close these brackets; return which of them ends the value, if one does."""
        if self._stack:
            # What opens and closes on the spot changes nothing, and is most of it where it is many.
            fewer = _without_pairs(brackets)
            stack = self._stack.copy()
            if _walk(stack, fewer) is None:
                self._stack = stack
                return None
        return _walk(self._stack, brackets)

    def _check_until(self, cut: int) -> None:
        """Check what came since the last step's comma, and begin anew after this one."""
        stack = bytes(self._stack)
        self._check_piece(cut, _closing(stack))
        self._context, self._piece, self._at = stack, cut, cut

    def _ended(self, end: int) -> int:
        self._check_piece(end, b"")
        return end

    def _check_piece(self, end: int, closing: bytes) -> None:
        rest = bytes(self._text[self._piece : end])
        text = b"".join((_opening(self._context), *self._kept, rest, closing))
        self._kept.clear()
        _check(text, self._piece)


def _without_pairs(brackets: bytes) -> bytes:
    for _ in range(_ROUNDS):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return brackets


def _walk(stack: bytearray, brackets: bytes) -> int | None:
    """Follow brackets on a stack; return the number of the one that empties it, if one does."""
    for number, bracket in enumerate(brackets):
        if bracket in _OPENING:
            stack.append(bracket)
            if len(stack) > DEEPEST:
                raise NotJsonError("it is nested too deeply")
        else:
            if stack:
                stack.pop()
            if not stack:
                return number
    return None


def _place(chunk: bytes, number: int, *, in_string: bool) -> int:
    """Return where the bracket of that number is that stands outside of strings."""
    begin = chunk.index(b'"') + 1 if in_string else 0
    brackets = (found for found in _TOKEN.finditer(chunk, begin) if found[0][:1] != b'"')
    for _ in range(number):
        next(brackets)
    return next(brackets).start()


def _opening(stack: bytes) -> bytes:
    """Return what makes of the text after a comma inside these brackets a text from its start."""
    if not stack:
        return b""
    outer = b"".join(b"[" if each == _OPENING[0] else b'{"":' for each in stack[:-1])
    return outer + (b"[0," if stack[-1] == _OPENING[0] else b'{"":0,')


def _closing(stack: bytes) -> bytes:
    """Return what makes of a text up to a comma inside these brackets a text to its end."""
    if not stack:
        return b""
    outer = b"".join(b"]" if each == _OPENING[0] else b"}" for each in reversed(stack[:-1]))
    return (b"0]" if stack[-1] == _OPENING[0] else b'"":0}') + outer


def _check(text: bytes, at: int) -> None:
    """Raise NotJsonError unless the text is one JSON value. `at` is about where it stands."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        raise NotJsonError(f"it is malformed at byte {at} or soon after") from None
