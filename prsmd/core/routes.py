"""The routing table: which endpoints get traffic of which model. Published whole, never edited.

Decides only from one observation and the plan made of it: what the plan ends gets no more traffic.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from prsmd.core.outlook import Outlook, holds_by_deployment, outlook
from prsmd.core.plan import DesiredDeployment, Drain, Fail, Hold, Observed, Plan, Stop
from prsmd.core.rollout import traffic
from prsmd.core.sight import Sight
from prsmd.core.slots import has_settled, lay_out
from prsmd.core.trial import Trial
from prsmd.domain.replica import Endpoint, Replica
from prsmd.domain.rollout import Rollout, RolloutPhase
from prsmd.domain.spec import Serving


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RouteTarget:
    """One replica that may get traffic, and how it is spoken to: as its own revision says.

    `serving` None: as the route says. `on_trial`: it is of the revision on trial, and gets the
    traffic that the trial says.
    """

    replica_id: str
    endpoint: Endpoint
    revision: int = 0
    version: str = ""
    serving: Serving | None = None
    on_trial: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Everything the data path needs to know of one model.

    `targets` may be empty while replicas start or the model is scaled to zero: `waiting_for` then
    says what a request is waiting for, in words, and `hopeless` that waiting cannot help. `serving`
    is the current revision's: its queue and its request timeout bound every request. `trial` says
    how traffic divides between the targets; None: by their load alone.
    """

    deployment_id: str
    organization: str
    model_id: str
    model_name: str
    model_type: str
    version: str
    revision: int
    serving: Serving
    targets: tuple[RouteTarget, ...]
    waiting_for: str = ""
    hopeless: bool = False
    trial: Trial | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class RoutingTable:
    """All routes by deployment id, as of one tick."""

    routes: Mapping[str, Route]


_SERVED = Outlook(waiting_for="", hopeless=False)


def routes(desired: Sequence[DesiredDeployment], observed: Observed, plan: Plan) -> RoutingTable:
    """Return a route for every deployment that is not being deleted.

    Its targets are the ready replicas that the plan leaves in service. While one revision takes
    over from another, those of both, a new one as soon as it has proven itself; else those of
    earlier revisions stand in only while there is none of the current one, and those of a revision
    that was given up only while there is no better one. While the engine is silent a good probe is
    enough: inference goes on.
    """
    sight = Sight.of(observed)
    leaving = frozenset(
        action.replica.id for action in plan.actions if isinstance(action, Drain | Stop | Fail)
    )
    holds = holds_by_deployment(plan.holds)
    return RoutingTable(
        routes={
            item.deployment.id: _route(
                item,
                _targets(item, leaving, sight),
                holds.get(item.deployment.id, ()),
                sight,
            )
            for item in desired
            if not item.deployment.deleting
        }
    )


def _targets(
    item: DesiredDeployment, leaving: frozenset[str], sight: Sight
) -> tuple[RouteTarget, ...]:
    ready = [
        (replica, at)
        for replica in item.replicas
        if replica.id not in leaving and sight.ready(replica)
        if (at := sight.endpoint(replica)) is not None
    ]
    numbers = item.current_numbers
    current = [(replica, at) for replica, at in ready if replica.revision in numbers]
    if _side_by_side(item.rollout):
        proven = [
            (replica, at)
            for replica, at in ready
            if replica.revision not in numbers or has_settled(item, replica, sight)
        ]
        serving = proven or ready
    elif bad := item.given_up_numbers:
        serving = [(replica, at) for replica, at in ready if replica.revision not in bad] or ready
    else:
        serving = current or ready
    return tuple(_target(item, replica, at) for replica, at in serving)


def _side_by_side(rollout: Rollout | None) -> bool:
    """Tell whether replicas of two revisions serve together: neither is known to be bad."""
    return rollout is not None and (rollout.active or rollout.phase is RolloutPhase.ABORTED)


def _target(item: DesiredDeployment, replica: Replica, at: Endpoint) -> RouteTarget:
    trying = item.rollout is not None and item.rollout.phase is RolloutPhase.TRYING
    current = replica.revision in item.current_numbers
    revision = item.revision if current else item.revision_of(replica)
    return RouteTarget(
        replica_id=replica.id,
        endpoint=at,
        revision=revision.number,
        version=revision.spec.metadata.version,
        serving=revision.spec.serving,
        on_trial=trying and current,
    )


def _route(
    item: DesiredDeployment,
    targets: tuple[RouteTarget, ...],
    holds: Sequence[Hold],
    sight: Sight,
) -> Route:
    deployment, spec = item.deployment, item.revision.spec
    trial = traffic(item.rollout)
    answering = [
        one for one in targets if not (one.on_trial and trial is not None and trial.compares_only)
    ]
    ahead = _SERVED if answering else outlook(item, lay_out(item, sight), holds, sight)
    return Route(
        deployment_id=deployment.id,
        organization=deployment.organization,
        model_id=deployment.model_id,
        model_name=deployment.model_name,
        model_type=spec.model_type,
        version=spec.metadata.version,
        revision=item.revision.number,
        serving=spec.serving,
        targets=targets,
        waiting_for=ahead.waiting_for,
        hopeless=ahead.hopeless,
        trial=trial,
    )
