"""One exchange with one replica, spoken to as its revision says: translate, send, translate back.

Owns no slot and no time limit: whoever asks holds the slot and decides how long to wait.
"""

import dataclasses
from collections.abc import Mapping

from prsmd.core.memory_budget import Holding
from prsmd.domain.errors import ProviderError
from prsmd.protocols.base import EVENT_STREAM, ModelRequest, ServingProtocol
from prsmd.protocols.json_members import Text
from prsmd.protocols.registry import PROTOCOLS

from .queue import no_headers
from .target import Target
from .turns import Turns
from .upstream import Sending, Upstream, UpstreamAnswer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """What a client wants inferred: JSON, as it was sent.

    `stream`: it takes an event stream if the model has one. `holding` counts the bytes that are
    held for it (None: what is held is bounded otherwise).

    `client` names who asks, of which `organization` and from which `address`, and `headers` (names
    in lower case) are those of its request that matter for a trial: no container sees any of them.
    """

    inputs: Text
    request_id: str
    parameters: Text = b"{}"
    stream: bool = False
    client: str = ""
    organization: str = ""
    address: str = ""
    holding: Holding | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=no_headers)

    def of(self, model: str) -> ModelRequest:
        """Return what a container of this model is asked."""
        return ModelRequest(
            model=model, inputs=self.inputs, parameters=self.parameters, stream=self.stream
        )


class Reply:
    """The head of a container's answer, and how to read the rest. `close` it always."""

    __slots__ = ("_protocol", "_turns", "answer", "streams")

    def __init__(self, answer: UpstreamAnswer, protocol: ServingProtocol, turns: Turns) -> None:
        self.answer = answer
        self.streams = answer.content_type == EVENT_STREAM and answer.status == 200
        self._protocol = protocol
        self._turns = turns

    async def outputs(
        self, max_bytes: int | None = None, holding: Holding | None = None
    ) -> memoryview:
        """Return the outputs in the complete answer, as they stand there, and close it.

        ProviderError; ResourceUnavailableError where no more may be held for whom they are for.
        """
        try:
            if self.streams:
                raise ProviderError(
                    "the model streamed an answer that was not asked to stream",
                    provider_status=self.answer.status,
                )
            answer = await self.answer.read(max_bytes, holding)
            return await self._turns.take(self._protocol.outputs(answer))
        finally:
            self.answer.close()


async def send(
    upstream: Upstream,
    target: Target,
    request: ModelRequest,
    request_id: str,
    sending: Sending | None = None,
) -> Reply:
    """Ask a replica; `sending` tells how far the request came.

    NotSentError, ProviderError, ExhaustedError; InvalidInputError where it cannot be said.
    """
    protocol = PROTOCOLS[target.serving.protocol]
    translated = protocol.request(request, target.serving)
    answer = await upstream.send(target.endpoint, translated, request_id, sending)
    return Reply(answer, protocol, upstream.turns)
