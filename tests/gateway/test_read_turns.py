"""What clients and containers send is parsed a little at a time, and in turn."""

import asyncio
import collections
import time
from collections.abc import Callable

from prsmd.gateway.read_turns import PacedReader, ReadTurns, Turn

MOST = 4  # pieces in one turn
TURN = Turn(pieces=MOST, piece_bytes=4096, seconds=0.004)


class Connection:
    """Notes what it is told, in which turn of the loop, and fails or dawdles if told to."""

    def __init__(self, clock: Callable[[], int], *, fails: bool = False, slow: float = 0) -> None:
        self.told: list[str] = []
        self.received = b""
        self.turns: list[int] = []
        self.full = False
        self._clock = clock
        self._fails = fails
        self._slow = slow

    def take(self, piece: bytes) -> None:
        self.turns.append(self._clock())
        self.received += piece
        time.sleep(self._slow)
        if self._fails:
            raise RuntimeError("told to fail")

    def hold(self) -> None:
        self.told.append("hold")

    def go_on(self) -> None:
        self.told.append("go on")

    def cut(self) -> None:
        self.told.append("cut")


class Loop:
    """Counts the turns of the running loop."""

    def __init__(self) -> None:
        self.turn = 0
        asyncio.get_running_loop().call_soon(self._next)

    def __call__(self) -> int:
        return self.turn

    def _next(self) -> None:
        self.turn += 1
        asyncio.get_running_loop().call_soon(self._next)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to it")


def opened(turns: ReadTurns, count: int, source: str, loop: Loop, **how: float):
    connections = [Connection(loop, **how) for _ in range(count)]
    return connections, [PacedReader(turns, source, connection) for connection in connections]


async def test_a_burst_is_parsed_a_few_pieces_in_each_turn():
    loop, turns = Loop(), ReadTurns(TURN)
    connections, readers = opened(turns, 100, "a", loop)
    for reader in readers:
        reader.receive(b"x")
    await until(lambda: all(connection.received for connection in connections))

    in_each = collections.Counter(turn for one in connections for turn in one.turns)
    assert max(in_each.values()) == MOST
    assert sum(in_each.values()) == 100


async def test_what_is_slow_to_parse_has_a_turn_for_itself():
    loop, turns = Loop(), ReadTurns(TURN)
    connections, readers = opened(turns, 5, "a", loop, slow=0.005)
    for reader in readers:
        reader.receive(b"x")
    await until(lambda: all(connection.received for connection in connections))

    assert len({turn for one in connections for turn in one.turns}) == 5


async def test_an_address_that_sends_little_does_not_wait_behind_one_that_sends_much():
    loop, turns = Loop(), ReadTurns(TURN)
    many, readers = opened(turns, 100, "many", loop)
    [one], [reader] = opened(turns, 1, "one", loop)
    for each in readers:
        each.receive(b"x")
    reader.receive(b"x")
    await until(lambda: bool(one.received))

    before = [each for each in many if each.received]
    assert len(before) <= 2 * MOST


async def test_what_is_large_comes_in_pieces_whole_and_in_order_while_its_client_waits():
    loop, turns = Loop(), ReadTurns(TURN)
    [connection], [reader] = opened(turns, 1, "a", loop)
    sent = bytes(range(256)) * 1000
    reader.receive(sent[:200_000])
    reader.receive(sent[200_000:])
    assert connection.told == ["hold"]
    assert reader.waits
    await until(lambda: connection.told == ["hold", "go on"])

    assert connection.received == sent
    assert len(connection.turns) > MOST
    assert not reader.waits


async def test_a_connection_that_fails_to_read_is_cut_and_the_others_go_on():
    loop, turns = Loop(), ReadTurns(TURN)
    [failing], [first] = opened(turns, 1, "a", loop, fails=True)
    [other], [second] = opened(turns, 1, "a", loop)
    first.receive(b"x" * 100_000)
    second.receive(b"y")
    await until(lambda: bool(other.received))

    assert "cut" in failing.told
    assert len(failing.turns) == 1
    assert other.received == b"y"


async def test_a_connection_that_is_full_is_handed_nothing_until_it_is_not():
    loop, turns = Loop(), ReadTurns(TURN)
    [connection], [reader] = opened(turns, 1, "a", loop)
    reader.receive(b"x" * 200_000)
    connection.full = True
    begun = len(connection.received)
    await until(lambda: loop() > 5)
    assert len(connection.received) == begun
    connection.full = False
    reader.go_on()
    reader.receive(b"y" * 100_000)
    await until(lambda: not reader.waits)

    assert connection.received == b"x" * 200_000 + b"y" * 100_000
    assert connection.told == ["hold", "go on"]


async def test_what_arrives_for_a_connection_that_is_full_waits():
    loop, turns = Loop(), ReadTurns(TURN)
    [connection], [reader] = opened(turns, 1, "a", loop)
    connection.full = True
    reader.receive(b"x")
    await until(lambda: loop() > 5)
    assert (connection.received, connection.told) == (b"", ["hold"])
    connection.full = False
    reader.go_on()
    reader.go_on()
    await until(lambda: not reader.waits)

    assert (connection.received, connection.told) == (b"x", ["hold", "go on"])


async def test_nothing_is_handed_to_a_connection_that_is_gone():
    loop, turns = Loop(), ReadTurns(TURN)
    [gone], [reader] = opened(turns, 1, "a", loop)
    [other], [second] = opened(turns, 1, "a", loop)
    reader.receive(b"x" * 1_000_000)
    reader.close()
    begun = len(gone.received)
    second.receive(b"y")
    await until(lambda: bool(other.received))

    assert len(gone.received) == begun
