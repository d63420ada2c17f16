"""The client's nouns: each method makes one call of `prsm_sdk.calls` and carries it out."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from . import calls, revision_calls
from .aio import AsyncTransport
from .changes import Changes
from .errors import ClientTimeoutError
from .models import (
    Comparison,
    DeploymentStatus,
    Event,
    Gpu,
    InferenceResult,
    LogLine,
    Model,
    Node,
    RolloutState,
    Version,
)
from .waiting import POLL_SECONDS, has_completed, is_up, raise_if_failed
from .wire import Page


class CustomModels(Changes):
    """Models that the caller's organization owns, and their deployments."""

    async def get_deployment_status(
        self, deployment_id: str, wait_seconds: float | None = None
    ) -> DeploymentStatus:
        """Return how a deployment does, after waiting at most `wait_seconds` until it settled."""
        return await self._transport.send(calls.deployment_status(deployment_id, wait_seconds))

    async def wait_until_running(
        self,
        deployment_id: str,
        timeout: float = 600.0,  # noqa: ASYNC109 - the error says what was waited for
    ) -> DeploymentStatus:
        """Return the status of a deployment once it runs (or idles, scaled to zero).

        Raises:
            DeploymentFailedError: It failed; the message says why.
            ClientTimeoutError: It did not run within `timeout` seconds; it goes on trying.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    status = await self.get_deployment_status(deployment_id, POLL_SECONDS)
                    raise_if_failed(status)
                    if is_up(status):
                        return status
                    await asyncio.sleep(POLL_SECONDS / 4)
        except TimeoutError as error:
            if isinstance(error, ClientTimeoutError):
                raise
            msg = f"{deployment_id} does not run after {timeout:g} s"
            raise ClientTimeoutError(msg) from None

    async def list_deployments(self, limit: int = 20, offset: int = 0) -> Page[DeploymentStatus]:
        """List deployments, at most 100 at a time."""
        return await self._transport.send(calls.list_deployments(limit, offset))

    async def events(self, deployment_id: str, limit: int = 100) -> Page[Event]:
        """List the last things that happened to a deployment, oldest first."""
        return await self._transport.send(calls.events(deployment_id, limit))

    def follow_events(self, deployment_id: str, after: int | None = None) -> AsyncIterator[Event]:
        """Follow what happens to a deployment, from after the event numbered `after`.

        A cut connection is bridged without losing or repeating an event.
        """
        return self._transport.follow(calls.follow_events(deployment_id, after))

    async def logs(
        self,
        deployment_id: str,
        tail: int | None = None,
        since: float | None = None,
        replica: str | None = None,
    ) -> Page[LogLine]:
        """Return log lines: the last `tail` (100), since an epoch second, of one replica."""
        return await self._transport.send(calls.logs(deployment_id, tail, since, replica))

    def follow_logs(
        self,
        deployment_id: str,
        tail: int | None = None,
        since: float | None = None,
        replica: str | None = None,
    ) -> AsyncIterator[LogLine]:
        """Follow log lines as they are written."""
        return self._transport.follow(calls.follow_logs(deployment_id, tail, since, replica))

    async def delete(self, model_id: str, if_match: int | None = None) -> None:
        """Drain, stop and remove a model."""
        await self._transport.send(calls.delete(model_id, if_match))

    async def versions(self, model_id: str, limit: int = 20, offset: int = 0) -> Page[Version]:
        """List a model's revisions, newest first, at most 100 at a time."""
        return await self._transport.send(revision_calls.versions(model_id, limit, offset))

    async def diff(
        self, model_id: str, from_revision: int | None = None, to_revision: int | None = None
    ) -> Comparison:
        """Compare two revisions: by default the wanted one with the one before it."""
        return await self._transport.send(revision_calls.diff(model_id, from_revision, to_revision))

    async def rollout(self, model_id: str) -> RolloutState:
        """Return a model's latest rollout, under way or ended."""
        return await self._transport.send(revision_calls.rollout(model_id))

    async def wait_until_rolled_out(
        self,
        model_id: str,
        timeout: float = 600.0,  # noqa: ASYNC109 - the error says what was waited for
    ) -> RolloutState:
        """Return the latest rollout of a model once it is completed.

        Raises:
            RolloutFailedError: It ended otherwise; the message says why.
            ClientTimeoutError: It did not end within `timeout` seconds; it goes on.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    state = await self.rollout(model_id)
                    if has_completed(state):
                        return state
                    await asyncio.sleep(POLL_SECONDS / 4)
        except TimeoutError as error:
            if isinstance(error, ClientTimeoutError):
                raise
            msg = f"{model_id} is not rolled out after {timeout:g} s"
            raise ClientTimeoutError(msg) from None

    async def pause_rollout(self, model_id: str, if_match: int | None = None) -> RolloutState:
        """Let the rollout under way take no further step."""
        return await self._transport.send(revision_calls.steer(model_id, "pause", if_match))

    async def resume_rollout(self, model_id: str, if_match: int | None = None) -> RolloutState:
        """Let a paused rollout go on."""
        return await self._transport.send(revision_calls.steer(model_id, "resume", if_match))

    async def promote_rollout(self, model_id: str, if_match: int | None = None) -> RolloutState:
        """End a trial well: the new revision takes over."""
        return await self._transport.send(revision_calls.steer(model_id, "promote", if_match))

    async def abort_rollout(self, model_id: str, if_match: int | None = None) -> RolloutState:
        """End a rollout: what it was to replace is wanted again."""
        return await self._transport.send(revision_calls.steer(model_id, "abort", if_match))

    async def set_traffic(
        self, model_id: str, weights: Mapping[int, int], if_match: int | None = None
    ) -> RolloutState:
        """Divide the traffic of a trial by hand: percents by revision, which sum to 100."""
        return await self._transport.send(revision_calls.set_traffic(model_id, weights, if_match))

    async def list(self, limit: int = 20, offset: int = 0) -> Page[Model]:
        """List models, at most 100 at a time."""
        return await self._transport.send(calls.list_custom_models(limit, offset))

    async def get(self, model_id: str) -> Model:
        """Return one model by id or name."""
        return await self._transport.send(calls.get_custom_model(model_id))


class Models:
    """Models that the caller may infer with."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def infer(
        self,
        model_id: str,
        inputs: Any,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - replaces the client's own for one call
    ) -> InferenceResult:
        """Ask a model; `inputs` and `parameters` reach its container as they are.

        `timeout` is seconds for the whole call (default 300, above the server's own limit).
        """
        return await self._transport.send(calls.infer(model_id, inputs, parameters, timeout))

    async def list(self, limit: int = 20, offset: int = 0) -> Page[Model]:
        """List models, at most 100 at a time."""
        return await self._transport.send(calls.list_models(limit, offset))


class NodeResource:
    """The appliance."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def get(self) -> Node:
        """Return the appliance's runtime, cpu and memory."""
        return await self._transport.send(calls.get_node())

    async def gpus(self) -> tuple[Gpu, ...]:
        """Return the appliance's GPUs as last measured."""
        return (await self._transport.send(calls.list_gpus())).gpus
