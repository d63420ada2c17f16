"""Bounded inference traffic from several threads; every answer is kept and checked."""

import dataclasses
import http.client
import threading
import time
from typing import Self

from tests.support.daemon import Answer, Daemon


@dataclasses.dataclass(frozen=True)
class Sent:
    """One inference: when it began and ended (monotonic seconds), and what came of it.

    `status` is 0 where no answer came. `right`: the answer belongs to this very request.
    """

    began: float
    ended: float
    status: int
    right: bool
    text: str


class Traffic:
    """`threads` clients with one request at a time each, at most `each` requests a client."""

    def __init__(self, daemon: Daemon, model: str, threads: int, each: int) -> None:
        self.sent: list[Sent] = []
        self._daemon = daemon
        self._path = f"/v1/models/{model}/infer"
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(number, each), daemon=True)
            for number in range(threads)
        ]

    @property
    def answered(self) -> int:
        """How many requests got the right answer so far."""
        return sum(one.status == 200 for one in list(self.sent))

    @property
    def failed(self) -> list[Sent]:
        """Every request that was not answered rightly."""
        return [one for one in list(self.sent) if one.status != 200 or not one.right]

    @property
    def wrong(self) -> list[Sent]:
        """Every answer 200 that belongs to another request."""
        return [one for one in list(self.sent) if one.status == 200 and not one.right]

    def start(self) -> Self:
        """Begin; return at once."""
        for thread in self._threads:
            thread.start()
        return self

    def until_answered(self, count: int) -> None:
        """Return when that many more requests were answered."""
        goal = self.answered + count
        self._daemon.until(f"{goal} requests are answered", lambda: self.answered >= goal)

    def stop(self) -> Self:
        """Send no more, and return when everything sent has ended."""
        self._stop.set()
        return self.finish()

    def finish(self) -> Self:
        """Return when every client has sent all it may."""
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request hangs"
        return self

    def _client(self, number: int, each: int) -> None:
        for count in range(each):
            if self._stop.is_set():
                return
            self.sent.append(self._ask(f"client {number} request {count}"))

    def _ask(self, text: str) -> Sent:
        began = time.monotonic()
        try:
            answer = self._daemon.call("POST", self._path, {"inputs": {"text": text}})
        except (OSError, http.client.HTTPException) as error:
            # A refused connection costs nothing: without a pause the bound is spent at once.
            self._stop.wait(0.05)
            return Sent(began, time.monotonic(), 0, right=False, text=repr(error))
        return Sent(began, time.monotonic(), answer.status, _echoes(answer, text), repr(answer))


def _echoes(answer: Answer, text: str) -> bool:
    return answer.status == 200 and answer.json["outputs"]["inputs"] == {"text": text}
