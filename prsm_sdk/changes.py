"""What changes a model: deploy, scale, update, roll back.

Each is done, or with `dry_run` only told: then nothing is changed and a `Plan` is returned.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, overload

from . import calls, revision_calls
from .aio import AsyncTransport
from .calls import Call
from .models import Deployment, ScaleResult, UpdateResult
from .plans import Plan, dry

T = TypeVar("T")


class Changes:
    """The methods that change models."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    @overload
    async def deploy(
        self,
        model_name: str,
        container_image: str,
        resource_requirements: Mapping[str, str],
        model_type: str | None = None,
        scaling: Mapping[str, Any] | None = None,
        model_metadata: Mapping[str, Any] | None = None,
        deployment_config: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        *,
        dry_run: Literal[False] = False,
    ) -> Deployment: ...

    @overload
    async def deploy(
        self,
        model_name: str,
        container_image: str,
        resource_requirements: Mapping[str, str],
        model_type: str | None = None,
        scaling: Mapping[str, Any] | None = None,
        model_metadata: Mapping[str, Any] | None = None,
        deployment_config: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        *,
        dry_run: Literal[True],
    ) -> Plan: ...

    async def deploy(  # noqa: PLR0913, PLR0917 - the published document names each of these
        self,
        model_name: str,
        container_image: str,
        resource_requirements: Mapping[str, str],
        model_type: str | None = None,
        scaling: Mapping[str, Any] | None = None,
        model_metadata: Mapping[str, Any] | None = None,
        deployment_config: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        *,
        dry_run: bool = False,
    ) -> Deployment | Plan:
        """Deploy a new model; returns as soon as it is accepted.

        `deployment_config` holds what goes beyond image, resources and scaling (`serving`,
        `environment`, ...). Quantities are written as in Kubernetes.
        """
        config = calls.deployment_config(
            container_image, resource_requirements, scaling, deployment_config
        )
        body = calls.deploy_body(model_name, config, model_type, model_metadata)
        return await self._done(calls.deploy(body, idempotency_key), dry_run)

    @overload
    async def scale(
        self,
        model_id: str,
        target_replicas: int,
        scaling_strategy: str = "immediate",
        idempotency_key: str | None = None,
        if_match: int | None = None,
        *,
        dry_run: Literal[False] = False,
    ) -> ScaleResult: ...

    @overload
    async def scale(
        self,
        model_id: str,
        target_replicas: int,
        scaling_strategy: str = "immediate",
        idempotency_key: str | None = None,
        if_match: int | None = None,
        *,
        dry_run: Literal[True],
    ) -> Plan: ...

    async def scale(
        self,
        model_id: str,
        target_replicas: int,
        scaling_strategy: str = "immediate",
        idempotency_key: str | None = None,
        if_match: int | None = None,
        *,
        dry_run: bool = False,
    ) -> ScaleResult | Plan:
        """Ask for a number of replicas; `gradual` adds or removes them one by one."""
        call = calls.scale(model_id, target_replicas, scaling_strategy, idempotency_key, if_match)
        return await self._done(call, dry_run)

    @overload
    async def update(
        self,
        model_id: str,
        container_image: str | None = None,
        resource_requirements: Mapping[str, str | None] | None = None,
        model_type: str | None = None,
        scaling: Mapping[str, Any] | None = None,
        model_metadata: Mapping[str, Any] | None = None,
        deployment_config: Mapping[str, Any] | None = None,
        rollout: Mapping[str, Any] | None = None,
        if_match: int | None = None,
        idempotency_key: str | None = None,
        *,
        dry_run: Literal[False] = False,
    ) -> UpdateResult: ...

    @overload
    async def update(
        self,
        model_id: str,
        container_image: str | None = None,
        resource_requirements: Mapping[str, str | None] | None = None,
        model_type: str | None = None,
        scaling: Mapping[str, Any] | None = None,
        model_metadata: Mapping[str, Any] | None = None,
        deployment_config: Mapping[str, Any] | None = None,
        rollout: Mapping[str, Any] | None = None,
        if_match: int | None = None,
        idempotency_key: str | None = None,
        *,
        dry_run: Literal[True],
    ) -> Plan: ...

    async def update(  # noqa: PLR0913, PLR0917 - as `deploy`, and how it is rolled out
        self,
        model_id: str,
        container_image: str | None = None,
        resource_requirements: Mapping[str, str | None] | None = None,
        model_type: str | None = None,
        scaling: Mapping[str, Any] | None = None,
        model_metadata: Mapping[str, Any] | None = None,
        deployment_config: Mapping[str, Any] | None = None,
        rollout: Mapping[str, Any] | None = None,
        if_match: int | None = None,
        idempotency_key: str | None = None,
        *,
        dry_run: bool = False,
    ) -> UpdateResult | Plan:
        """Change a model; returns as soon as it is accepted. What is not given stays as it is.

        Inside the mappings None resets a field to its default. `rollout` is how a new container
        comes (`{"strategy": "canary", ...}`). With `if_match`, the revision that you have seen,
        nothing is changed when the model is at another one.

        Raises:
            PreconditionFailedError: Somebody else has changed the model.
        """
        given = {
            "container_image": container_image,
            "resource_requirements": resource_requirements,
            "scaling": scaling,
        }
        config = dict(deployment_config or {}) | {k: v for k, v in given.items() if v is not None}
        body = revision_calls.update_body(config, model_type, model_metadata, rollout)
        call = revision_calls.update(model_id, body, if_match, idempotency_key)
        return await self._done(call, dry_run)

    @overload
    async def rollback(
        self,
        model_id: str,
        target: int | str | None = None,
        rollout: Mapping[str, Any] | None = None,
        if_match: int | None = None,
        idempotency_key: str | None = None,
        *,
        dry_run: Literal[False] = False,
    ) -> UpdateResult: ...

    @overload
    async def rollback(
        self,
        model_id: str,
        target: int | str | None = None,
        rollout: Mapping[str, Any] | None = None,
        if_match: int | None = None,
        idempotency_key: str | None = None,
        *,
        dry_run: Literal[True],
    ) -> Plan: ...

    async def rollback(
        self,
        model_id: str,
        target: int | str | None = None,
        rollout: Mapping[str, Any] | None = None,
        if_match: int | None = None,
        idempotency_key: str | None = None,
        *,
        dry_run: bool = False,
    ) -> UpdateResult | Plan:
        """Go back to a revision (a number), a version (a label), or the last good one."""
        call = revision_calls.rollback(model_id, target, rollout, if_match, idempotency_key)
        return await self._done(call, dry_run)

    async def _done(self, call: Call[T], dry_run: bool) -> T | Plan:  # noqa: FBT001 - passed on
        if dry_run:
            return await self._transport.send(dry(call))
        return await self._transport.send(call)
