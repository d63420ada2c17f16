"""A client that is refused reads its answer, although it sends a large body to the end first."""

import asyncio

import pytest

from prsmd.api.client_transport import ClientTransport, Discards
from tests.api.wire import connected, parts, until_closed

SIZE = 6 * 1024**2
HEAD = (
    "POST {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\n"
    "Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
)
REFUSED = {
    "too large": ("/v1/custom-models/deploy", "owner", 413),
    "by permission": ("/v1/custom-models/deploy", "viewer", 403),
    "without a key": ("/v1/custom-models/deploy", None, 401),
    "no such path": ("/v1/nowhere", "owner", 404),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("times", [1, 8])
def test_who_sends_all_of_a_refused_body_reads_the_answer_after_it(site, case, times):
    path, role, status = REFUSED[case]
    key = "prsm_none" if role is None else site.keys[role]
    head = HEAD.format(path=path, key=key, size=SIZE).encode()
    clients = [connected(("127.0.0.1", site.daemon.tcp_port)) for _ in range(times)]
    for client in clients:
        client.sendall(head + b" " * SIZE)
    for client in clients:
        with client:
            answered, headers, _ = parts(until_closed(client))
            assert (answered, headers["connection"]) == (status, "close")


class Counting:
    """A transport that has more to read whenever it is asked."""

    def __init__(self, reads: list[int], turn: list[int]) -> None:
        self.reads, self.turn = reads, turn
        self.line: ClientTransport | None = None
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        self.reads[self.turn[0]] += 1
        asyncio.get_running_loop().call_soon(self._receive)

    def pause_reading(self) -> None:
        self.reading = False

    def is_closing(self) -> bool:
        return self.turn[0] >= 50

    def _receive(self) -> None:
        assert self.line is not None
        if self.reading:
            self.line.discard()


async def test_of_many_that_still_send_few_are_read_in_each_turn_and_all_in_time():
    discards, turn, reads = Discards(), [0], [0] * 100
    counted = [Counting(reads, turn) for _ in range(20)]
    for each in counted:
        each.line = ClientTransport(each, discards)  # type: ignore[arg-type]
        each.line.discard()
    while turn[0] < 50:
        await asyncio.sleep(0)
        turn[0] += 1

    assert max(reads) == 4
    assert sum(reads) >= 100
