"""What of the limits was set aside, by account and day. core/blocks.py decides how much."""

import json
from collections.abc import Collection, Iterable, Mapping

from prsmd.core.blocks import TOTAL, Ask, lease

from . import meta
from .connection import Tx
from .rows import change, many, one

_STOPPED = "meters_stopped"
_FAR_DAYS = 31
_NO_DAY = 1 << 40


async def grant(tx: Tx, ask: Ask) -> tuple[int, int]:
    """Set aside what is due; return what is set aside without the new block, and with it."""
    before, after = lease(ask, await reserved(tx, ask.account, ask.day))
    await _put(tx, ask.account, ask.day, after)
    return before, after


async def reserved(tx: Tx, account: str, day: int) -> int:
    """Return how many of an account are set aside of a day, or in all (TOTAL)."""
    row = await one(tx, "SELECT reserved FROM leases WHERE account = ? AND day = ?", (account, day))
    return 0 if row is None else int(row["reserved"])


async def reserved_of(
    tx: Tx, accounts: Collection[str], days: Collection[int]
) -> dict[str, dict[int, int]]:
    """Return how many of each account are set aside of these days; nothing where that is 0."""
    rows = await many(
        tx,
        "SELECT account, day, reserved FROM leases WHERE "
        "account IN (SELECT value FROM json_each(:accounts)) AND "
        "day IN (SELECT value FROM json_each(:days))",
        {"accounts": json.dumps([*accounts]), "days": json.dumps([*days])},
    )
    found: dict[str, dict[int, int]] = {}
    for row in rows:
        found.setdefault(row["account"], {})[row["day"]] = row["reserved"]
    return found


async def settle(tx: Tx, used: Iterable[tuple[str, int, int]], paces: Mapping[str, float]) -> None:
    """Note a clean stop: what was used (account, day, how many), and when paces are full again."""
    for account, day, count in used:
        await _put(tx, account, day, count)
    for account, full_at in paces.items():
        await change(tx, "INSERT OR REPLACE INTO paces VALUES (?, ?)", (account, full_at))
    await meta.set(tx, _STOPPED, "cleanly")


async def begin(tx: Tx, first_day: int) -> dict[str, float] | None:
    """Begin to count; return when paces are full again, None after anything but a clean stop.

    What can count no more is forgotten, and with it the days before the first; but not where the
    clock is far from the last day that was counted, as it may be wrong.
    """
    clean = await meta.get(tx, _STOPPED) in {None, "cleanly"}  # None: nothing was counted ever
    rows = await many(tx, "SELECT account, full_at FROM paces")
    await change(tx, "DELETE FROM paces")
    await meta.set(tx, _STOPPED, "")
    row = await one(tx, "SELECT max(day) AS day FROM leases WHERE day > ?", (TOTAL,))
    last = None if row is None else row["day"]
    near = last is None or abs(last - first_day) <= _FAR_DAYS
    await forget(tx, first_day if near else TOTAL)
    return {row["account"]: row["full_at"] for row in rows} if clean else None


async def forget(tx: Tx, first_day: int, last_day: int = _NO_DAY) -> None:
    """Forget what can count no more: days before the first, after the last, and shares gone."""
    query = "DELETE FROM leases WHERE day > ? AND (day < ? OR day > ?)"
    await change(tx, query, (TOTAL, first_day, last_day))
    await change(
        tx,
        "DELETE FROM leases WHERE instr(account, '/') > 0 "
        "AND substr(account, 1, instr(account, '/') - 1) NOT IN (SELECT id FROM shares)",
    )


async def _put(tx: Tx, account: str, day: int, count: int) -> None:
    await change(tx, "INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (account, day, count))
