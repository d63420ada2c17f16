"""One exchange with one replica, spoken to as its revision says: translate, send, translate back.

Owns no slot and no time limit: whoever asks holds the slot and decides how long to wait.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from prsmd.domain.errors import ProviderError
from prsmd.protocols.base import EVENT_STREAM, ModelRequest, ServingProtocol
from prsmd.protocols.registry import PROTOCOLS

from .queue import no_headers
from .target import Target
from .upstream import Upstream, UpstreamAnswer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """What a client wants inferred. `stream`: it takes an event stream if the model has one.

    `client` names who asks, of which `organization` and from which `address`, and `headers` (names
    in lower case) are those of its request that matter for a trial: no container sees any of them.
    """

    inputs: Any
    request_id: str
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stream: bool = False
    client: str = ""
    organization: str = ""
    address: str = ""
    headers: Mapping[str, str] = dataclasses.field(default_factory=no_headers)

    def of(self, model: str) -> ModelRequest:
        """Return what a container of this model is asked."""
        return ModelRequest(
            model=model, inputs=self.inputs, parameters=self.parameters, stream=self.stream
        )


class Reply:
    """The head of a container's answer, and how to read the rest. `close` it always."""

    __slots__ = ("_protocol", "answer", "streams")

    def __init__(self, answer: UpstreamAnswer, protocol: ServingProtocol) -> None:
        self.answer = answer
        self.streams = answer.content_type == EVENT_STREAM and answer.status == 200
        self._protocol = protocol

    async def outputs(self, max_bytes: int | None = None) -> Any:
        """Return the outputs in the complete answer, and close it. ProviderError."""
        try:
            if self.streams:
                raise ProviderError(
                    "the model streamed an answer that was not asked to stream",
                    provider_status=self.answer.status,
                )
            return self._protocol.outputs(await self.answer.read(max_bytes))
        finally:
            self.answer.close()


async def send(upstream: Upstream, target: Target, request: ModelRequest, request_id: str) -> Reply:
    """Ask a replica. NotSentError, ProviderError; InvalidInputError where it cannot be said."""
    protocol = PROTOCOLS[target.serving.protocol]
    translated = protocol.request(request, target.serving)
    return Reply(await upstream.send(target.endpoint, translated, request_id), protocol)
