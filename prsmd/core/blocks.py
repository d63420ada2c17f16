"""Blocks: how many requests of a limit the store sets aside before they are spent in memory.

What is set aside counts as spent for whoever reads the store after a crash, so that a limit is
never exceeded and a crash costs at most the one block.
"""

import dataclasses

TOTAL = -1  # the "day" of what is counted for good
LARGEST_BLOCK = 64
NEVER = 1 << 62
_PARTS = 16  # a block is this part of what is left


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """What a window wants of the store: `spare` are given back, and a block is to be set aside.

    `ahead` are set aside already and not spent. `closing`: no block is wanted any more.
    """

    account: str
    day: int
    limit: int
    ahead: int
    spare: int
    closing: bool = False


class Window:
    """What is counted of one limit in one day, or in all.

    `reserved` is what the store has set aside in all, `used` how much of that is spent, `places`
    how many are kept for requests that wait. `used` may go up to `open`; when it comes to `mark`,
    the next block is due. What is `known` was read from the store. `carried` were spent under
    another day's name, before the clock was set: the limit is for both.
    """

    __slots__ = ("carried", "day", "known", "limit", "mark", "open", "places", "reserved", "used")

    def __init__(self, day: int, limit: int) -> None:
        self.day = day
        self.limit = limit
        self.reserved = self.used = self.open = self.places = self.carried = 0
        self.mark = NEVER
        self.known = False

    def __repr__(self) -> str:
        name = "total" if self.day == TOTAL else f"day {self.day}"
        return f"<Window {name}: {self.used} of {self.reserved} reserved, {self.limit} allowed>"

    @property
    def allowed(self) -> int:
        """How many may be spent under this name."""
        return max(0, self.limit - self.carried)

    @property
    def ahead(self) -> int:
        """How many are set aside and not spent."""
        return self.reserved - self.used

    @property
    def spare(self) -> int:
        """How many more than a block are set aside."""
        return max(0, self.ahead - block(self.allowed - self.used))

    @property
    def exhausted(self) -> bool:
        """True when the limit itself is reached, not only the block."""
        return self.known and self.used + self.places >= self.allowed

    @property
    def left(self) -> int:
        """How many more may come."""
        return max(0, self.allowed - self.used - self.places)

    def allow(self, limit: int) -> None:
        """Count against this limit from now on."""
        self.limit = limit
        self._open_up()

    def carry(self, spent: int) -> None:
        """Count what was spent in all before the clock was set, as far as it is not counted."""
        self.carried = max(0, spent - self.used)
        self._open_up()

    def void(self) -> None:
        """Let nothing have been spent; what is set aside may be."""
        self.used = self.carried = 0
        self._open_up()

    def ask(self, account: str, *, closing: bool = False) -> Ask:
        """Return what to ask the store for. What it may have back is not spent from now on."""
        spare = 0
        if self.known:
            spare = self.ahead if closing else self.spare
        self.reserved -= spare
        self._open_up()
        return Ask(account, self.day, self.allowed, self.ahead, spare, closing)

    def keep(self, ask: Ask) -> None:
        """The store did not carry out what it was asked: what it was to have back is still here."""
        self.reserved += ask.spare
        self._open_up()

    def keep_places(self, count: int) -> None:
        """Keep so many places more, or fewer, for requests that wait."""
        self.places += count
        self._open_up()

    def learn(self, before: int, after: int) -> None:
        """Take over what the store has set aside: `before` a block was added, and `after` it.

        What it had set aside and nobody here remembers was lost to a crash, and counts as spent.
        """
        forgotten = max(0, before - self.reserved)
        self.used += forgotten
        self.carried = max(0, self.carried - forgotten)
        self.reserved = after
        self.known = True
        self._open_up()

    def _open_up(self) -> None:
        self.open = min(self.reserved, self.allowed - self.places)
        size = block(self.allowed - self.used)
        ends = self.reserved >= self.allowed or size == 1  # near the limit nothing is leased ahead
        self.mark = NEVER if ends else self.open - size // 2


def block(left: int) -> int:
    """Return how many of `left` are set aside at once: a part of them, and near the end one."""
    return min(LARGEST_BLOCK, max(1, left // _PARTS)) if left > 0 else 0


def lease(ask: Ask, stored: int) -> tuple[int, int]:
    """Decide what the store, which has `stored` set aside, sets aside from now on.

    Return it without and with the new block.
    """
    before = max(0, stored - ask.spare)
    if ask.closing:
        return before, before
    left = ask.limit - before
    return before, before + max(0, min(block(left + ask.ahead) - ask.ahead, left))
