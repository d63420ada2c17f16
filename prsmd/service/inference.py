"""Inference: find the route, check the permission, hand over to the gateway. No database on it."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from prsmd.core.routes import Route
from prsmd.domain.access import ModelRef, Permission
from prsmd.domain.errors import ModelNotFoundError, PrsmdError, ResourceUnavailableError
from prsmd.gateway.infer import Gateway, Inference, InferenceResult, Outcome
from prsmd.service.caller import Caller, require
from prsmd.service.deployments import find_model
from prsmd.store.db import Database

DENIED, UNAVAILABLE = "denied", Outcome.UNAVAILABLE.value
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Inferences:
    """Use cases on inference."""

    def __init__(self, gateway: Gateway, database: Database) -> None:
        self._gateway = gateway
        self._database = database

    async def infer(
        self,
        caller: Caller,
        model: str,
        inference: Inference,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> tuple[Route, InferenceResult]:
        """Return the model's answer and the route it took. See `Gateway.infer` for the errors.

        Of the request's `headers` (names in any case) only the one that a trial asks about goes on
        to the gateway. Who is refused before a route is found is noted too.
        """
        try:
            route = await self._route(caller, model)
        except PrsmdError as error:
            outcome = UNAVAILABLE if isinstance(error, ResourceUnavailableError) else DENIED
            self._gateway.note_refused(inference, model[:100], outcome)
            raise
        inference = _with_trial_header(route, inference, headers)
        return route, await self._gateway.infer(route, inference)

    async def _route(self, caller: Caller, model: str) -> Route:
        """Return the route of a model that the caller may infer with."""
        route = self._gateway.find(caller.principal.organization, model)
        if route is None:
            route = self._gateway.find(caller.scope, model)
        if route is None:
            raise await self._missing(caller, model)
        missing = ModelNotFoundError(f"There is no model {model[:100]}.", model_id=model[:100])
        ref = ModelRef(route.deployment_id, route.model_id, route.model_name)
        require(caller, Permission.MODELS_INFER, route.organization, missing, ref)
        return route

    async def _missing(self, caller: Caller, model: str) -> PrsmdError:
        """Tell a model that is just coming or going from one that does not exist."""
        async with self._database.read() as tx:
            found = await find_model(tx, caller, model, Permission.MODELS_INFER)
        state = "is being deleted" if found.deleting else "was accepted and is not routed yet"
        return ResourceUnavailableError(
            f"Model {found.model_id} {state}; see its status.",
            resource_type="replica",
            deployment_id=found.id,
        )


def _with_trial_header(route: Route, inference: Inference, headers: Mapping[str, str]) -> Inference:
    rule = route.trial.header if route.trial is not None else None
    if rule is None:
        return inference
    value = headers.get(rule.name)
    if value is None:
        return inference
    return dataclasses.replace(inference, headers={rule.name.lower(): value})
