"""Copies of answered requests to the revision on trial, whose answers are compared, never given.

A copy begins after its original was answered, and is given up rather than be in anybody's way: few
are under way at once, none waits for a slot, and none outlives its replica's place in the table.
"""

import asyncio
import dataclasses
import functools
import json
import time
from collections.abc import Callable
from typing import Any

from prsmd.core.comparison import compare
from prsmd.domain.errors import InvalidInputError, ProviderError

from .endings import ExhaustedError, UnheardError
from .exchange import Inference, send
from .passage import InferenceResult, Passage
from .pool import Pool
from .target import Target
from .trials import TrialMeter
from .upstream import NotSentError, Upstream

COPIED_BYTES = 256 * 1024  # of request and answer together; what is larger would hold up the loop
ANSWER_BYTES = 2 * COPIED_BYTES
_AT_A_TIME = 1000  # parts of answers compared before others get their turn


@dataclasses.dataclass(frozen=True, slots=True)
class _Copy:
    """One request to be asked again, and what the stable revision answered."""

    pool: Pool
    meter: TrialMeter
    target: Target
    inference: Inference
    outputs: bytes


class Shadow:
    """The copies under way, of all deployments. `clock` gives seconds since the epoch."""

    def __init__(self, upstream: Upstream, most: int, clock: Callable[[], float]) -> None:
        self._upstream = upstream
        self._most = most
        self._clock = clock
        self._underway: dict[asyncio.Task[None], _Copy] = {}
        self._closed = False

    def offer(self, passage: Passage, result: InferenceResult) -> None:
        """Copy an answered inference, if its trial asks for it and there is room."""
        pool, meter, trial = passage.pool, passage.meter, passage.pool.route.trial
        if meter is None or meter is not pool.meter or trial is None or not trial.shadow_percent:
            return
        if passage.on_trial or result.stream is not None or not meter.takes_copy(trial):
            return
        full = self._closed or len(self._underway) >= self._most
        too_large = passage.bytes_passed > COPIED_BYTES
        target = None if full or too_large else pool.claim_copy()
        if target is None:
            meter.dropped += 1
            return
        inference = _kept(passage.inference)
        copy = _Copy(pool, meter, target, inference, bytes(result.outputs))
        name = f"shadow-{passage.inference.request_id}"
        task = asyncio.create_task(self._run(copy), name=name)
        self._underway[task] = copy
        # Not in the task itself: one that is cancelled before it began would never give back.
        task.add_done_callback(functools.partial(self._end, copy))

    def give_up(self) -> None:
        """Cut all copies and make no more."""
        self._closed = True
        for task in self._underway:
            task.cancel()

    def give_up_leaving(self) -> None:
        """Cut the copies to replicas that are no longer in the table."""
        for task, copy in self._underway.items():
            if copy.target.leaving:
                task.cancel()

    async def close(self) -> None:
        """Cut all copies and wait until they have ended."""
        self.give_up()
        await asyncio.gather(*self._underway, return_exceptions=True)

    def _end(self, copy: _Copy, task: asyncio.Task[None]) -> None:
        del self._underway[task]
        if task.cancelled():
            copy.meter.dropped += 1
        copy.pool.release_copy(copy.target, self._clock())

    async def _run(self, copy: _Copy) -> None:
        began, judged_from = time.perf_counter(), self._upstream.judge.now()
        try:
            async with asyncio.timeout(copy.target.serving.request_timeout_seconds):
                outputs = await self._ask(copy)
        except (NotSentError, UnheardError, ExhaustedError):
            copy.meter.dropped += 1
            return
        except (ProviderError, TimeoutError, InvalidInputError):
            # The stable revision could say these inputs: not to be able to is a failure here.
            self._measure(copy, began, judged_from, failed=True)
            return
        self._measure(copy, began, judged_from, failed=False)
        alike = await _alike(json.loads(copy.outputs), json.loads(bytes(outputs)))
        copy.meter.compared += 1
        copy.meter.differing += not alike

    def _measure(self, copy: _Copy, began: float, judged_from: float, *, failed: bool) -> None:
        """Count a copy's answer, unless the daemon could not have heard it in time."""
        if self._upstream.judge.unknown(judged_from) is not None:
            copy.meter.dropped += failed
            return
        copy.meter.record(time.perf_counter() - began, on_trial=True, failed=failed)

    async def _ask(self, copy: _Copy) -> memoryview:
        request = copy.inference.of(copy.pool.route.model_name)
        name = f"{copy.inference.request_id}-shadow"
        reply = await send(self._upstream, copy.target, request, name)
        return await reply.outputs(ANSWER_BYTES)


def _kept(inference: Inference) -> Inference:
    """Return an inference with bytes of its own: those of the request go when it is answered."""
    return dataclasses.replace(
        inference,
        inputs=bytes(inference.inputs),
        parameters=bytes(inference.parameters),
        stream=False,
        holding=None,
    )


async def _alike(one: Any, other: Any) -> bool:
    for done, alike in enumerate(compare(one, other), start=1):
        if not alike:
            return False
        if done % _AT_A_TIME == 0:
            await asyncio.sleep(0)
    return True
