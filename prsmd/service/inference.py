"""Inference: find the route, check the permission, hand over to the gateway. No database on it."""

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NoReturn

from prsmd.core.permit import Allow, permit
from prsmd.core.routes import Route
from prsmd.domain.access import ModelRef, Permission
from prsmd.domain.errors import (
    ModelNotFoundError,
    PrsmdError,
    QueueFullError,
    ResourceUnavailableError,
)
from prsmd.domain.quota import Share
from prsmd.gateway.endings import MEMORY
from prsmd.gateway.infer import Gateway, Inference, InferenceResult, Outcome
from prsmd.gateway.meters import Held
from prsmd.service.borrowing import refuse_ambiguous
from prsmd.service.caller import Caller, require
from prsmd.service.deployments import find_model
from prsmd.service.lending import Lendings
from prsmd.service.throttle import Throttle
from prsmd.store.db import Database

DENIED, UNAVAILABLE = "denied", Outcome.UNAVAILABLE.value
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
Complete = Callable[[Sequence[Held], Inference], Awaitable[Inference]]
"""Completes an inference that was admitted, and is counted in these limits, with its body."""


class Inferences:
    """Use cases on inference."""

    def __init__(
        self, gateway: Gateway, database: Database, lendings: Lendings, throttle: Throttle
    ) -> None:
        self._gateway = gateway
        self._database = database
        self._lendings = lendings
        self._throttle = throttle

    async def infer(
        self,
        caller: Caller,
        model: str,
        inference: Inference,
        headers: Mapping[str, str] = _NO_HEADERS,
        on_admitted: Complete | None = None,
    ) -> tuple[Route, InferenceResult]:
        """Return the model's answer and the route it took. See `Gateway.infer` for the errors.

        Of the request's `headers` (names in any case) only the one that a trial asks about goes on
        to the gateway. Who is refused before a route is found is noted too. `on_admitted` hears
        what the inference is counted in and returns it with what the model is to be asked: of who
        is refused, nothing is read. What it raises is raised, and then nothing was counted.
        """
        try:
            route, share = self._route(caller, model) or await self._missing(caller, model)
        except PrsmdError as error:
            outcome = UNAVAILABLE if isinstance(error, ResourceUnavailableError) else DENIED
            self._gateway.note_refused(inference, model[:100], outcome)
            raise
        inference = _with_trial_header(route, inference, headers)
        try:
            held = await self._count(caller, route, share)
        except PrsmdError:
            self._gateway.note_limited(route, inference)
            raise
        try:
            if on_admitted is not None:
                inference = await self._completed(route, inference, held, on_admitted)
            return route, await self._gateway.infer(route, inference, held)
        except (QueueFullError, ResourceUnavailableError) as error:
            own = error.details.get("resource_type") == MEMORY  # the caller's, not the model's
            if caller.borrows(route.organization) and not own:
                raise _to_borrowers(error) from None
            raise

    async def _completed(
        self, route: Route, inference: Inference, held: Sequence[Held], complete: Complete
    ) -> Inference:
        """Return an admitted inference with its body, unless it would be refused anyway."""
        try:
            self._gateway.refuse_at_once(route, inference)
            return await complete(held, inference)
        except BaseException:
            for each in held:
                each.end(counts=False)
            raise

    async def _count(self, caller: Caller, route: Route, share: Share | None) -> Sequence[Held]:
        """Count an inference in the limits of its key and of its share: in both, or in none."""
        limits = self._throttle.limits(caller.principal)
        if limits is None:
            return () if share is None else await self._count_lent(caller, route, share)
        by_key = await self._throttle.admit(caller.principal, limits)
        if share is None:
            return (by_key,)
        try:
            if not self._lendings.holds(share):
                share = self._again(caller, route)
            return (by_key, *await self._count_lent(caller, route, share))
        except BaseException:
            by_key.end(counts=False)
            raise

    async def _count_lent(self, caller: Caller, route: Route, share: Share) -> Sequence[Held]:
        held = await self._lendings.admit(share, caller.principal)
        if self._lendings.holds(share):
            return () if held is None else (held,)
        if held is not None:
            held.end(counts=False)  # revoked, changed or expired while a block was waited for
        return await self._count_lent(caller, route, self._again(caller, route))

    def _again(self, caller: Caller, route: Route) -> Share:
        """Return the share by which the caller may infer by now."""
        shares = self._lendings.of(caller.principal, route.deployment_id)
        share = _permitted(caller, route, route.model_id, shares)
        assert share is not None  # noqa: S101 - nobody's own model becomes another's
        return share

    def _route(self, caller: Caller, model: str) -> tuple[Route, Share | None] | None:
        """Return the route of a model that the caller may infer with, and by which share."""
        route = self._gateway.find(caller.principal.organization, model)
        if route is None and caller.scope is None:
            route = self._gateway.find(None, model)
        if route is not None:
            return route, _permitted(caller, route, model)
        found = self._borrowed(caller, model)
        return None if found is None else (found[0], _permitted(caller, found[0], model, found[1]))

    def _borrowed(self, caller: Caller, model: str) -> tuple[Route, Sequence[Share]] | None:
        """Return the route of the one model of that name that is lent to the caller, and how."""
        found: tuple[Route, Sequence[Share]] | None = None
        for deployment_id in self._lendings.named(caller.principal, model):
            shares = self._lendings.of(caller.principal, deployment_id)
            route = self._gateway.route(deployment_id)
            if shares and route is not None:
                if found is not None and found[0] is not route:
                    refuse_ambiguous(model, {deployment_id, found[0].deployment_id})
                found = route, shares
        return found

    async def _missing(self, caller: Caller, model: str) -> NoReturn:
        """Tell a model that is just coming or going from one that does not exist."""
        async with self._database.read() as tx:
            found = await find_model(tx, caller, model, Permission.MODELS_INFER)
        state = "is being deleted" if found.deleting else "was accepted and is not routed yet"
        raise ResourceUnavailableError(
            f"Model {found.model_id} {state}; see its status.",
            resource_type="replica",
            deployment_id=found.id,
        )


def _to_borrowers(error: PrsmdError) -> PrsmdError:
    """Return a refusal without its reasons: they name replicas and hardware."""
    if isinstance(error, QueueFullError):
        return QueueFullError("The model is busy and its queue is full.", **error.details)
    details = {**error.details, "reason": "no replica can take it now"}
    return ResourceUnavailableError("The model cannot answer now; its owner sees why.", **details)


def _permitted(
    caller: Caller, route: Route, model: str, shares: Sequence[Share] = ()
) -> Share | None:
    """Return the share by which the caller may infer with a model; None: by its own role."""
    ref = ModelRef(route.deployment_id, route.model_id, route.model_name)
    permission = Permission.MODELS_INFER
    verdict = permit(caller.principal, permission, route.organization, ref, shares)
    if isinstance(verdict, Allow):
        return verdict.share
    missing = ModelNotFoundError(f"There is no model {model[:100]}.", model_id=model[:100])
    return require(caller, permission, route.organization, missing, ref, shares).share


def _with_trial_header(route: Route, inference: Inference, headers: Mapping[str, str]) -> Inference:
    rule = route.trial.header if route.trial is not None else None
    if rule is None:
        return inference
    value = headers.get(rule.name)
    if value is None:
        return inference
    return dataclasses.replace(inference, headers={rule.name.lower(): value})
