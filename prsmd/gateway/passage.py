"""One inference's way: claim or wait, translate, exchange, translate back, give back, record.

A passage owns at most one slot or one place in a queue, and gives it back exactly once, on every
way out, cancellation included.
"""

import asyncio
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Self

from prsmd.core.admission import Admit, Refuse, Wait
from prsmd.core.stalls import Unknown
from prsmd.domain.errors import InvalidInputError, PrsmdError
from prsmd.protocols.base import EVENT_ENDS, ModelRequest

from .endings import BrokenOffError, ExhaustedError, outcome_of, refused, timed_out, unavailable
from .exchange import Inference, Reply, send
from .ledger import Outcome
from .meters import Held
from .pool import Pool
from .queue import Ticket
from .target import Target
from .trials import TrialMeter
from .upstream import NotSentError, Sending, Upstream, UpstreamAnswer

_NOTHING = memoryview(b"null")
_FAIR_PART = 0.5  # of a timeout: who had less of it, after the queue, is not blamed for being late


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InferenceResult:
    """A model's answer: `outputs` (JSON, as it came), or a `stream` of server-sent events as bytes.

    `inference_time_ms` is the exchange with the container, without the time in the queue; of a
    stream, it is the time until its head. A stream must be closed (`async with`, or `aclose`).
    """

    outputs: memoryview
    inference_time_ms: float
    replica_id: str
    model_version: str
    stream: "InferenceStream | None" = None


class Passage:
    """One inference from its arrival to its end.

    `on_end` is called once with the outcome and the seconds since arrival. `clock` gives seconds
    since the epoch; durations are measured by the performance counter, as uvloop's own clock only
    counts milliseconds. `revision` is the one that answers, or should have; `meter` what its trial
    is measured with (None: there is none); `answer` tells how much was sent and read.
    What is `held` of limits is given back when nothing `reached` a container, and not spent while
    it waits for a replica.
    """

    def __init__(
        self,
        pool: Pool,
        inference: Inference,
        upstream: Upstream,
        clock: Callable[[], float],
        on_end: "Callable[[Passage, Outcome, float], None]",
        held: Sequence[Held] = (),
    ) -> None:
        self.pool = pool
        self.inference = inference
        self.revision = pool.route.revision
        self.meter: TrialMeter | None = None
        self.on_trial = False
        self.answer: UpstreamAnswer | None = None
        self.ended = False
        self.reached = False
        self.held = held
        self.timeout_seconds = pool.route.serving.request_timeout_seconds
        self.exchange_seconds = self.timeout_seconds
        self._upstream = upstream
        self._clock = clock
        self._on_end = on_end
        self._arrived = time.perf_counter()
        self.judge = upstream.judge
        self._judged_from = self.judge.now()
        self._began: float | None = None  # the exchange with the target that is held
        self._took: float | None = None
        self._latest = math.inf
        self._ticket = Ticket(self._hear, inference.client, inference.headers)
        self._target: Target | None = None
        self._refusal: Refuse | None = None
        self._waiting: asyncio.Future[None] | None = None
        self.cut_by: PrsmdError | None = None
        self._sending = Sending()
        self._connecting: asyncio.Timeout | None = None  # until the answer's head has come
        self._gone: PrsmdError | None = None  # why the target is taken away
        self.limit: asyncio.Timeout | None = None  # of what is waited for now

    @property
    def replica_id(self) -> str | None:
        """The replica that works on it; None while none does."""
        return None if self._target is None else self._target.replica_id

    @property
    def bytes_passed(self) -> int:
        """How much was sent to a container and read from it, so far."""
        return 0 if self.answer is None else self.answer.bytes_sent + self.answer.bytes_read

    async def run(self) -> InferenceResult:
        """Take the inference to its result, in at most the route's request timeout."""
        try:
            self._latest = asyncio.get_running_loop().time() + self.timeout_seconds
            async with asyncio.timeout_at(self._latest) as deadline:
                self.limit = deadline
                return await self._run(deadline)
        except TimeoutError:
            error = self.cut_by or self._late()
        except BaseException as caught:
            if self.cut_by is None or not isinstance(caught, PrsmdError):
                self.fail(caught)
                raise
            error = self.cut_by
        finally:
            self.limit = None
        self.fail(error)
        try:
            raise error
        finally:
            del error  # its traceback has this frame, which would keep it, and the body

    def cut(self, error: PrsmdError) -> None:
        """End it with this error, whatever the container's answer looks like from now on."""
        self.cut_by = self.cut_by or error
        if self.limit is not None and not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time())

    def cut_off(self, error: PrsmdError) -> None:
        """Take the replica away: ask another one, or where this one was asked already, `cut`."""
        connecting = self._connecting
        if connecting is None or self._sending.begun:
            self.cut(error)
        elif not connecting.expired():
            self._gone = error
            connecting.reschedule(asyncio.get_running_loop().time())

    def fail(self, error: BaseException) -> None:
        """End it with this error; where the exchange broke off, others avoid the replica.

        Not one that is on trial: how often it fails is what the trial is to find out.
        """
        target = self._target
        if isinstance(error, BrokenOffError) and target is not None and not target.on_trial:
            target.suspect = True
        self.end(outcome_of(error))

    def end(self, outcome: Outcome) -> None:
        """Give back what is held and record the outcome; only the first call counts."""
        if self.ended:
            return
        self.ended = True
        now, seconds = self._clock(), time.perf_counter() - self._arrived
        target, self._target = self._target, None
        if target is None:
            self.pool.leave(self._ticket, now)
        else:
            self.pool.release(target, now, seconds if outcome is Outcome.OK else None)
        if self.meter is not None and self._began is not None:
            self._measure(self.meter, outcome, self._began)
        for held in self.held:
            held.end(counts=self.reached)
        self._on_end(self, outcome, seconds)
        self._ticket.forget()

    async def _run(self, deadline: asyncio.Timeout) -> InferenceResult:
        target = await self._settle(self.pool.claim(self._ticket, self._clock()))
        while True:
            began = self._begin(target, deadline)
            request = self.inference.of(self.pool.route.model_name)
            try:
                self.reached = True
                reply = await self._send(target, request)
                self.answer = reply.answer
                break
            except (InvalidInputError, ExhaustedError):
                self.reached = False  # it cannot be said in the container's words, or to nobody
                raise
            except NotSentError:
                self.reached = False
                self._target = self._began = None
                self._allow(deadline, math.inf)
                verdict = self.pool.claim_again(self._ticket, target, self._clock())
                target = await self._settle(verdict)
        version = target.version
        outputs, stream = _NOTHING, None
        if reply.streams and self.inference.stream:
            self._took = time.perf_counter() - began
            stream = InferenceStream(self, reply.answer)
        else:
            outputs = await self._finish(reply, began)
        return InferenceResult(
            outputs=outputs,
            inference_time_ms=(self._took or 0.0) * 1000,
            replica_id=target.replica_id,
            model_version=version,
            stream=stream,
        )

    async def _send(self, target: Target, request: ModelRequest) -> Reply:
        """Ask the target; NotSentError too where it is taken away before it was asked."""
        self._sending = Sending()
        request_id = self.inference.request_id
        try:
            async with asyncio.timeout(None) as self._connecting:
                return await send(self._upstream, target, request, request_id, self._sending)
        except TimeoutError:
            if self._gone is None:
                raise
            if self._sending.begun:
                raise self._gone from None
            raise NotSentError(self._gone.message) from None
        finally:
            self._connecting = self._gone = None

    async def _finish(self, reply: Reply, began: float) -> memoryview:
        outputs = await reply.outputs(holding=self.inference.holding)
        self._took = time.perf_counter() - began
        self.end(Outcome.OK)
        return outputs

    def _begin(self, target: Target, deadline: asyncio.Timeout) -> float:
        """Note who is asked now, and let it have no more time than its own revision says."""
        self.revision, self.on_trial = target.revision, target.on_trial
        self.meter = self.pool.meter
        self.exchange_seconds = min(target.serving.request_timeout_seconds, self.timeout_seconds)
        if self.exchange_seconds < self.timeout_seconds:
            self._allow(deadline, self.exchange_seconds)
        self._began = time.perf_counter()
        self._judged_from = self.judge.now()
        return self._began

    def _allow(self, deadline: asyncio.Timeout, seconds: float) -> None:
        if deadline.when() == self._latest and seconds == math.inf:
            return
        if not deadline.expired() and self.cut_by is None:
            deadline.reschedule(min(self._latest, asyncio.get_running_loop().time() + seconds))

    def _measure(self, meter: TrialMeter, outcome: Outcome, began: float) -> None:
        seconds = self._took if self._took is not None else time.perf_counter() - began
        if outcome is Outcome.TIMEOUT:
            counts = time.perf_counter() - began >= self.exchange_seconds * _FAIR_PART
        else:
            counts = outcome in {Outcome.OK, Outcome.PROVIDER_ERROR}
        if counts and self._unknown() is None:
            meter.record(seconds, on_trial=self.on_trial, failed=outcome is not Outcome.OK)

    async def _settle(self, verdict: Admit[Target] | Wait | Refuse) -> Target:
        """Return the target that is counted for this inference, waiting for it if need be."""
        if isinstance(verdict, Admit):
            self._target = verdict.target
        elif isinstance(verdict, Refuse):
            self._refusal = verdict
        elif self._target is None and self._refusal is None:
            self._waiting = asyncio.get_running_loop().create_future()
            for held in self.held:
                held.wait()
            await self._waiting
        if self._refusal is not None:
            raise refused(self._refusal, self._clock())
        for held in self.held:
            await held.go_on()
        assert self._target is not None  # noqa: S101 - the pool counted one, or refused
        return self._target

    def _hear(self, verdict: Target | Refuse) -> None:
        # A cancelled waiter may still hear: `end` gives back what is noted here.
        if isinstance(verdict, Refuse):
            self._refusal = verdict
        else:
            self._target = verdict
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _unknown(self) -> Unknown | None:
        """Return why it says nothing about the model how late or long this is; None: it does."""
        return self.judge.unknown(self._judged_from)

    def _late(self) -> PrsmdError:
        if self._began is not None:
            seconds = self.exchange_seconds
            words = f"the model did not answer within {seconds:g} s"
            return timed_out(words, seconds, self._unknown())
        seconds = self.timeout_seconds
        if (why := self.pool.shortage(self._ticket)) is not None:
            return unavailable(f"no replica became ready within {seconds:g} s: {why}", why)
        return timed_out(f"no slot became free within {seconds:g} s", seconds, self._unknown())


class InferenceStream:
    """The chunks of a streamed answer, as the container sent them. Holds its slot until closed.

    Iterating raises ProviderError when the container breaks off, InferenceTimeoutError when nothing
    comes for the request timeout, and what the passage is cut by.
    """

    def __init__(self, passage: Passage, answer: UpstreamAnswer) -> None:
        self._passage = passage
        self._answer = answer
        self._tail = b""  # as much of what came last as an event's end has

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._passage.ended:
            raise StopAsyncIteration
        seconds = self._passage.exchange_seconds
        judge = self._passage.judge
        asked = judge.now()
        self._refuse_if_cut()
        try:
            async with asyncio.timeout(seconds) as limit:
                self._passage.limit = limit
                chunk = await self._answer.read_chunk()
        except TimeoutError:
            self._refuse_if_cut()
            words = f"the model's stream paused for {seconds:g} s"
            error = timed_out(words, seconds, judge.unknown(asked))
            self._end(outcome_of(error))
            try:
                raise error from None
            finally:
                del error  # as in `Passage.run`
        except PrsmdError as error:
            self._refuse_if_cut()
            self._answer.close()
            self._passage.fail(error)
            raise
        except BaseException as error:
            self._end(outcome_of(error))
            raise
        finally:
            self._passage.limit = None
        if not chunk:
            self._refuse_if_cut()  # the end of a body that only a closed connection ends
            self._refuse_half()
            self._end(Outcome.OK)
            raise StopAsyncIteration
        self._tail = (self._tail + chunk[-4:])[-4:]
        return chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give the slot back. A stream that is cut before its end counts as cancelled."""
        self._end(Outcome.CANCELLED)

    def _refuse_if_cut(self) -> None:
        error = self._passage.cut_by
        if error is not None:
            self._end(outcome_of(error))
            try:
                raise error from None
            finally:
                del error  # as in `Passage.run`

    def _refuse_half(self) -> None:
        """Raise BrokenOffError where a closed connection ended the body within an event."""
        if self._answer.framed or not self._tail or self._tail.endswith(EVENT_ENDS):
            return
        self._answer.close()
        error = BrokenOffError("the model's stream ended within an event")
        self._passage.fail(error)
        raise error

    def _end(self, outcome: Outcome) -> None:
        self._answer.close()
        self._passage.end(outcome)
