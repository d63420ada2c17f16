"""One inference's way: claim or wait, translate, exchange, translate back, give back, record.

A passage owns at most one slot or one place in a queue, and gives it back exactly once, on every
way out, cancellation included.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from prsmd.core.admission import QUEUE_FULL, Admit, Refuse, Wait
from prsmd.core.routes import Route
from prsmd.domain.errors import (
    InferenceTimeoutError,
    InvalidInputError,
    ProviderError,
    PrsmdError,
    QueueFullError,
    ResourceUnavailableError,
)
from prsmd.protocols.base import EVENT_STREAM, ModelRequest, ServingProtocol
from prsmd.protocols.registry import PROTOCOLS

from .ledger import Outcome
from .pool import Pool, Target, Ticket
from .upstream import NotSentError, Upstream, UpstreamAnswer

RETRY_SECONDS = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """What a client wants inferred. `stream`: it takes an event stream if the model has one."""

    inputs: Any
    request_id: str
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stream: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InferenceResult:
    """A model's answer: `outputs` (any JSON), or a `stream` of server-sent events as bytes.

    `inference_time_ms` is the exchange with the container, without the time in the queue; of a
    stream, it is the time until its head. A stream must be closed (`async with`, or `aclose`).
    """

    outputs: Any
    inference_time_ms: float
    replica_id: str
    model_version: str
    stream: "InferenceStream | None" = None


class Passage:
    """One inference from its arrival to its end.

    `on_end` is called once with the outcome and the seconds since arrival. `clock` gives seconds
    since the epoch; durations are measured by the performance counter, as uvloop's own clock only
    counts milliseconds.
    """

    def __init__(
        self,
        pool: Pool,
        upstream: Upstream,
        clock: Callable[[], float],
        on_end: "Callable[[Passage, Outcome, float], None]",
    ) -> None:
        self.pool = pool
        self.timeout_seconds = pool.route.serving.request_timeout_seconds
        self.ended = False
        self._upstream = upstream
        self._clock = clock
        self._on_end = on_end
        self._arrived = time.perf_counter()
        self._ticket = Ticket(self._hear)
        self._target: Target | None = None
        self._refusal: Refuse | None = None
        self._waiting: asyncio.Future[None] | None = None

    async def run(self, inference: Inference) -> InferenceResult:
        """Take the inference to its result, in at most the spec's request timeout."""
        try:
            async with asyncio.timeout(self.timeout_seconds):
                return await self._run(inference)
        except TimeoutError:
            error = self._late()
        except BaseException as caught:
            self.end(outcome_of(caught))
            raise
        self.end(outcome_of(error))
        raise error

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
        self._on_end(self, outcome, seconds)

    async def _run(self, inference: Inference) -> InferenceResult:
        target = await self._settle(self.pool.claim(self._ticket, self._clock()))
        while True:
            route, began = self.pool.route, time.perf_counter()
            protocol = PROTOCOLS[route.serving.protocol]
            try:
                answer = await self._send(target, route, protocol, inference)
                break
            except NotSentError:
                self._target = None
                verdict = self.pool.claim_again(self._ticket, target, self._clock())
                target = await self._settle(verdict)
        result = InferenceResult(
            outputs=None,
            inference_time_ms=(time.perf_counter() - began) * 1000,
            replica_id=target.replica_id,
            model_version=route.version,
        )
        if answer.content_type == EVENT_STREAM and answer.status == 200 and inference.stream:
            return dataclasses.replace(result, stream=InferenceStream(self, answer))
        outputs = await _read_outputs(protocol, answer)
        milliseconds = (time.perf_counter() - began) * 1000
        self.end(Outcome.OK)
        return dataclasses.replace(result, outputs=outputs, inference_time_ms=milliseconds)

    async def _send(
        self, target: Target, route: Route, protocol: ServingProtocol, inference: Inference
    ) -> UpstreamAnswer:
        request = ModelRequest(
            model=route.model_name,
            inputs=inference.inputs,
            parameters=inference.parameters,
            stream=inference.stream,
        )
        translated = protocol.request(request, route.serving)
        return await self._upstream.send(target.endpoint, translated, inference.request_id)

    async def _settle(self, verdict: Admit[Target] | Wait | Refuse) -> Target:
        """Return the target that is counted for this inference, waiting for it if need be."""
        if isinstance(verdict, Admit):
            self._target = verdict.target
        elif isinstance(verdict, Refuse):
            self._refusal = verdict
        elif self._target is None and self._refusal is None:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        if self._refusal is not None:
            raise refused(self._refusal, self._clock())
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

    def _late(self) -> PrsmdError:
        seconds = self.timeout_seconds
        if self._target is not None:
            return timed_out(f"the model did not answer within {seconds:g} s", seconds)
        if not self.pool.load(self._clock()).targets:
            why = self.pool.route.waiting_for or "no replica is ready"
            return unavailable(f"no replica became ready within {seconds:g} s: {why}", why)
        return timed_out(f"no slot became free within {seconds:g} s", seconds)


class InferenceStream:
    """The chunks of a streamed answer, as the container sent them. Holds its slot until closed.

    Iterating raises ProviderError when the container breaks off, and InferenceTimeoutError when
    nothing comes for the request timeout.
    """

    def __init__(self, passage: Passage, answer: UpstreamAnswer) -> None:
        self._passage = passage
        self._answer = answer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._passage.ended:
            raise StopAsyncIteration
        seconds = self._passage.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                chunk = await self._answer.read_chunk()
        except TimeoutError:
            self._end(Outcome.TIMEOUT)
            raise timed_out(f"the model's stream paused for {seconds:g} s", seconds) from None
        except BaseException as error:
            self._end(outcome_of(error))
            raise
        if not chunk:
            self._end(Outcome.OK)
            raise StopAsyncIteration
        return chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give the slot back. A stream that is cut before its end counts as cancelled."""
        self._end(Outcome.CANCELLED)

    def _end(self, outcome: Outcome) -> None:
        self._answer.close()
        self._passage.end(outcome)


def outcome_of(error: BaseException) -> Outcome:
    """Return how an inference ended that ended with this error."""
    outcomes: tuple[tuple[type[BaseException], Outcome], ...] = (
        (ProviderError, Outcome.PROVIDER_ERROR),
        (InferenceTimeoutError, Outcome.TIMEOUT),
        (QueueFullError, Outcome.QUEUE_FULL),
        (InvalidInputError, Outcome.INVALID),
        (asyncio.CancelledError, Outcome.CANCELLED),
    )
    return next((to for kind, to in outcomes if isinstance(error, kind)), Outcome.UNAVAILABLE)


def refused(refusal: Refuse, now: float) -> PrsmdError:
    """Return the error that tells a client it was refused, and when trying again makes sense."""
    retry = refusal.retry_after_seconds
    if refusal.code == QUEUE_FULL:
        return QueueFullError(
            refusal.reason,
            limit_type="queue_depth",
            limit=refusal.limit,
            reset_time=int(now) + retry,
            retry_after_seconds=retry,
        )
    return unavailable(refusal.reason, refusal.reason, retry)


def unavailable(message: str, reason: str, retry: int = RETRY_SECONDS) -> ResourceUnavailableError:
    """Return the error for an inference that no replica can take."""
    return ResourceUnavailableError(
        message, resource_type="replica", reason=reason, retry_after_seconds=retry
    )


def timed_out(message: str, seconds: float) -> InferenceTimeoutError:
    """Return the error for an inference that took too long."""
    return InferenceTimeoutError(message, timeout_seconds=seconds)


async def _read_outputs(protocol: ServingProtocol, answer: UpstreamAnswer) -> Any:
    try:
        if answer.content_type == EVENT_STREAM and answer.status == 200:
            raise ProviderError(
                "the model streamed an answer that was not asked to stream",
                provider_status=answer.status,
            )
        return protocol.outputs(await answer.read())
    finally:
        answer.close()
