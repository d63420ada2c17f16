"""Turns rows into values, and tells of those that hold what prsmd never wrote.

SQLite finds them sound: only who decodes them sees the damage. What a transaction raises for
other reasons is left alone.
"""

import contextlib
import functools
import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

from .errors import DamagedRowError

T = TypeVar("T")
P = ParamSpec("P")
_FOREIGN = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError)


class _ReadRow:
    """A row that knows which column was read last."""

    def __init__(self, row: sqlite3.Row) -> None:
        self.column = ""
        self._row = row

    def __getitem__(self, column: str) -> Any:
        self.column = column
        return self._row[column]


def decodes(
    table: str,
) -> Callable[[Callable[Concatenate[sqlite3.Row, P], T]], Callable[Concatenate[sqlite3.Row, P], T]]:
    """Return the decorator of a function that makes a value of a row of `table`.

    What it cannot make one of is a DamagedRowError that names the column: the last one it read.
    """

    def decorate(
        decode: Callable[Concatenate[sqlite3.Row, P], T],
    ) -> Callable[Concatenate[sqlite3.Row, P], T]:
        @functools.wraps(decode)
        def decoded(row: sqlite3.Row, /, *more: P.args, **named: P.kwargs) -> T:
            try:
                return decode(row, *more, **named)
            except _FOREIGN as error:
                again: Any = _ReadRow(row)
                with contextlib.suppress(*_FOREIGN):
                    decode(again, *more, **named)
                raise _damaged(f"{table}.{again.column}") from error

        return decoded

    return decorate


@contextlib.contextmanager
def decoding(column: str) -> Iterator[None]:
    """Raise DamagedRowError for what cannot be decoded of `column`, which is named TABLE.COLUMN."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "malformed JSON" not in str(error):
            raise
        raise _damaged(column) from error
    except _FOREIGN as error:
        raise _damaged(column) from error


def strings(text: str) -> tuple[str, ...]:
    """Return the strings of a JSON array. ValueError where it is none, or has anything else."""
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError("it is no list of strings")
    return tuple(found)


def _damaged(column: str) -> DamagedRowError:
    # Not what is there: it may be a secret, and the error goes to the log and to callers.
    return DamagedRowError(f"{column} holds what prsmd never writes there")
