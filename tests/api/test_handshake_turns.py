"""TLS handshakes begin one by one, and none waits behind those of another address."""

import asyncio
import itertools
import socket
from collections.abc import Iterator

import pytest

from prsmd.api.handshake_turns import HandshakeTurns

LONG = 30.0


class Clients:
    """Connections whose other ends can speak."""

    def __init__(self) -> None:
        self._pairs: list[tuple[socket.socket, socket.socket]] = []

    def connect(self, *, speaks: bool = True) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(0.0)
        self._pairs.append((ours, theirs))
        if speaks:
            theirs.send(b"\x16\x03")
        return ours

    def speak(self) -> None:
        """Have the last one that connected speak."""
        self._pairs[-1][1].send(b"\x16\x03")

    def close(self) -> None:
        for pair in self._pairs:
            for end in pair:
                end.close()


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients()
    yield made
    made.close()


async def begun(turns: HandshakeTurns, client: socket.socket, source: str, order: list[str]):
    await turns.wait(client, source, LONG)
    order.append(source)


async def test_one_begins_in_each_turn_and_addresses_take_turns(clients: Clients):
    turns, order = HandshakeTurns(), list[str]()
    sources = ["many"] * 20 + ["one"]
    tasks = [
        asyncio.create_task(begun(turns, clients.connect(), source, order)) for source in sources
    ]
    seen = []
    while len(order) < len(sources):
        seen.append(len(order))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)

    assert order.index("one") <= 1
    assert max(after - before for before, after in itertools.pairwise(seen)) == 1


async def test_who_says_nothing_is_not_waited_for_by_others_and_runs_out_of_time(clients: Clients):
    turns = HandshakeTurns()
    with pytest.raises(TimeoutError):
        await turns.wait(clients.connect(speaks=False), "a", 0.01)
    await turns.wait(clients.connect(), "a", LONG)
    waiting = asyncio.create_task(turns.wait(clients.connect(speaks=False), "a", LONG))
    clients.speak()
    await waiting


HELLO = b"\x16\x03\x01\x00\x20" + b"h" * 32


@pytest.mark.parametrize("half", [1, 4, 5, 6, len(HELLO) - 1])
async def test_half_a_hello_is_waited_for_alone(half: int):
    turns, order = HandshakeTurns(), list[str]()
    with socket.create_server(("127.0.0.1", 0)) as server:
        slow, *quick = (socket.create_connection(server.getsockname()) for _ in range(4))
        ours = [server.accept()[0] for _ in range(4)]
    for each in ours:
        each.settimeout(0.0)
    slow.sendall(HELLO[:half])
    waiting = asyncio.create_task(begun(turns, ours[0], "slow", order))
    for client, its in zip(quick, ours[1:], strict=True):  # a turn that was the slow one's is over
        client.sendall(HELLO)
        await begun(turns, its, "quick", order)
    assert not waiting.done()
    slow.sendall(HELLO[half:])
    await waiting

    assert order == ["quick"] * 3 + ["slow"]
    assert ours[0].recv(100) == HELLO
    for each in (slow, *quick, *ours):
        each.close()


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\xff\xff", b"\x16"])
async def test_what_is_no_hello_or_ends_before_is_not_waited_for(said: bytes):
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        ours = server.accept()[0]
    ours.settimeout(0.0)
    client.sendall(said)
    client.shutdown(socket.SHUT_WR)
    with client, ours:
        await HandshakeTurns().wait(ours, "a", LONG)


async def test_a_turn_that_was_given_up_is_nobodys(clients: Clients):
    turns, order = HandshakeTurns(), list[str]()
    gone = [asyncio.create_task(turns.wait(clients.connect(), "a", LONG)) for _ in range(5)]
    last = asyncio.create_task(begun(turns, clients.connect(), "b", order))
    for task in gone:
        task.cancel()
    await last
    results = await asyncio.gather(*gone, return_exceptions=True)

    assert order == ["b"]
    assert all(isinstance(result, asyncio.CancelledError | None) for result in results)
