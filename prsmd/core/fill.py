"""Decides which empty slots of a deployment are filled now, and why the others have to wait."""

import dataclasses
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from prsmd.core.backoff import ended_by_slot, failures, waits_until
from prsmd.core.capacity import reserve
from prsmd.core.exits import cause_words
from prsmd.core.place import place
from prsmd.core.plan import Advance, Capacity, DesiredDeployment, Hold, Launch, Unplaceable
from prsmd.core.rollout import Course, course
from prsmd.core.room import Leaving, Vacancy, Yield, counted_on, leaving, make_room
from prsmd.core.shares import Room
from prsmd.core.sight import Sight
from prsmd.core.slots import Layout
from prsmd.core.supervise import Moment
from prsmd.domain.deployment import ScalingStrategy
from prsmd.domain.ids import replica_id_for
from prsmd.domain.replica import Placement, Replica, ReplicaState
from prsmd.domain.rollout import RolloutPhase

_COMING = frozenset({ReplicaState.PENDING, ReplicaState.STARTING})

Decision = Launch | Hold | Yield


def fill(
    item: DesiredDeployment, layout: Layout, capacity: Capacity, moment: Moment
) -> tuple[list[Decision], Capacity]:
    """Return a launch, a hold or who gives way for each empty slot, and what others may have.

    Where somebody gives way the slot is held as well, with the reason.
    """
    filling = _Filling(item, layout, capacity, moment)
    for vacancy in _vacancies(item, layout, moment.sight):
        filling.decide(vacancy)
    for slot in layout.withheld:
        vacancy = Vacancy(revision=item.revision, slot=slot)
        filling.decisions.append(_withheld(item, layout, vacancy, moment))
    return filling.decisions, reserve(filling.capacity, filling.counted_on)


def _vacancies(item: DesiredDeployment, layout: Layout, sight: Sight) -> list[Vacancy]:
    """Return the slots to be filled now: the current revision's, then the stable one's.

    While nothing of the stable one serves it comes first.
    """
    current = [Vacancy(revision=item.revision, slot=slot) for slot in layout.empty]
    if item.stable is None:
        return current
    stable = [Vacancy(revision=item.stable, slot=slot) for slot in layout.refilled]
    served = any(sight.ready(replica) for replica in layout.older)
    return current + stable if served else stable + current


class _Filling:
    """One deployment's slots being filled: what was decided and what is left to place on.

    What follows from its replicas is worked out once, not for each slot: a model that keeps failing
    has many of both.
    """

    def __init__(
        self, item: DesiredDeployment, layout: Layout, capacity: Capacity, moment: Moment
    ) -> None:
        self.item = item
        self.layout = layout
        self.capacity = capacity
        self.moment = moment
        self.decisions: list[Decision] = []
        self.launched: list[Launch] = []
        self.waiting: list[Replica] = []
        self.counted_on: list[Replica] = []

    @functools.cached_property
    def course(self) -> Course:
        """What happens to the deployment's rollout now."""
        return course(self.item, self.layout, self.moment.sight)

    @functools.cached_property
    def serving(self) -> bool:
        """Whether any replica serves."""
        sight = self.moment.sight
        return any(sight.ready(r) for r in (*self.layout.kept, *self.layout.older))

    @functools.cached_property
    def coming(self) -> Sequence[str]:
        """The replicas of the current revision that are on their way."""
        return [r.id for r in self.layout.kept if r.state in _COMING]

    @functools.cached_property
    def earlier(self) -> int:
        """How many replicas of earlier revisions have not ended."""
        return sum(r.active and r.revision not in self._current for r in self.item.replicas)

    @functools.cached_property
    def leaving(self) -> Leaving:
        """Who makes room anyway."""
        return leaving(self.item, self.layout)

    def ended(self, vacancy: Vacancy) -> Sequence[Replica]:
        """Return the ended replicas of a slot whose revisions count as the vacancy's."""
        current = vacancy.revision.number in self._current
        ended = self._ended_current if current else self._ended_stable
        return ended.get(vacancy.slot, ())

    def replica(self, vacancy: Vacancy, placement: Placement) -> Replica:
        """Return the replica that fills a slot."""
        known = self._known[vacancy.revision.number, vacancy.slot]
        return _replica(self.item, vacancy, placement, known, self.moment.now)

    @functools.cached_property
    def _current(self) -> frozenset[int]:
        return self.item.current_numbers

    @functools.cached_property
    def _ended_current(self) -> Mapping[int, Sequence[Replica]]:
        return ended_by_slot(self.item.replicas, self._current)

    @functools.cached_property
    def _ended_stable(self) -> Mapping[int, Sequence[Replica]]:
        return ended_by_slot(self.item.replicas, self.item.stable_numbers)

    @functools.cached_property
    def _known(self) -> Counter[tuple[int, int]]:
        """How many replicas of a revision a slot has had, as far as is known."""
        return Counter((r.revision, r.slot) for r in self.item.replicas)

    def decide(self, vacancy: Vacancy) -> None:
        """Decide about one slot."""
        hold = next((hold for check in _CHECKS if (hold := check(self, vacancy))), None)
        if hold is not None:
            self.decisions.append(hold)
            self._keep_room(vacancy)
        elif self._full() and self.layout.share.room is not Room.FIRST:
            self.decisions.append(_hold(self.item, vacancy, "surge", _surge_words(self)))
        else:
            self._place(vacancy, beside=not self._full() and not self._cleared_first())

    def _count_on(self, vacancy: Vacancy, going: Sequence[Replica]) -> None:
        """Keep for the new replica what it needs beside the room of those that leave."""
        new = dataclasses.replace(
            self.replica(vacancy, going[0].placement),
            id=f"the rollout of {self.item.deployment.id}",
        )
        for placement in counted_on(vacancy, going, self.capacity):
            self.counted_on.append(dataclasses.replace(new, placement=placement))

    def _keep_room(self, vacancy: Vacancy) -> None:
        """Leave a new slot that has to wait its room: the earlier revision does not take it back.

        It would have to give way again.
        """
        verdict = place(vacancy.revision.spec.resources, self._room_for(vacancy))
        if vacancy.revision is self.item.revision and isinstance(verdict, Placement):
            self.waiting.append(self.replica(vacancy, verdict))

    def _room_for(self, vacancy: Vacancy) -> Capacity:
        new = vacancy.revision is self.item.revision
        return self.capacity if new else reserve(self.capacity, self.waiting)

    def _full(self) -> bool:
        """Tell whether as many replicas exist as may at once."""
        limit = self.layout.share.limit
        there = len(self.layout.kept) + len(self.layout.older) + len(self.launched)
        return limit is not None and there >= limit

    def _cleared_first(self) -> bool:
        """Tell whether every earlier replica has to give way before anything new comes."""
        return self.layout.share.room is Room.ALL and bool(self.layout.older)

    def _place(self, vacancy: Vacancy, *, beside: bool) -> None:
        resources, asker = vacancy.revision.spec.resources, self.item.deployment.organization
        verdict = place(resources, self._room_for(vacancy), asker)
        if isinstance(verdict, Unplaceable) or not beside:
            self._swap(vacancy, verdict)
            return
        ended = self.ended(vacancy)
        reason = f"replaces {ended[-1].id}" if ended else "needs a replica"
        launch = Launch(replica=self.replica(vacancy, verdict), reason=reason)
        self.capacity = reserve(self.capacity, [launch.replica])
        self.launched.append(launch)
        self.decisions.append(launch)

    def _swap(self, vacancy: Vacancy, verdict: Placement | Unplaceable) -> None:
        """Let an earlier replica give way, one at a time; else say why the slot stays empty."""
        item = self.item
        turn = _turn_words(self)
        if turn is not None:
            self.decisions.append(_hold(item, vacancy, "swap", turn))
            return
        made = make_room(item, self.layout, vacancy, self.capacity, self.moment.sight, self.leaving)
        going = made.replicas if isinstance(made, Yield) else self.leaving.going
        if going and not self.counted_on:
            self._count_on(vacancy, going)
        if isinstance(made, Yield):
            self.decisions += [made, _hold(item, vacancy, "swap", _gives_way_words(made))]
        elif made is not None:
            self.decisions.append(made)
        elif isinstance(verdict, Unplaceable):
            self.decisions.append(
                _hold(item, vacancy, "unplaceable", verdict.summary, details=verdict.reasons)
            )
        else:
            self.decisions.append(_hold(item, vacancy, "surge", _surge_words(self)))


def _engine_silent(filling: _Filling, vacancy: Vacancy) -> Hold | None:
    if filling.moment.sight.containers is not None:
        return None
    reason = "the container engine does not answer; nothing is launched until it does"
    return _hold(filling.item, vacancy, "engine", reason)


def _backing_off(filling: _Filling, vacancy: Vacancy) -> Hold | None:
    ended = filling.ended(vacancy)
    until = waits_until(ended, filling.moment.now)
    if until is None:
        return None
    row = failures(ended)
    times = "failed" if len(row) == 1 else f"failed {len(row)} times in a row"
    reason = f"{times}, last: {cause_words(row[-1])}; it is tried again after a pause"
    return _hold(filling.item, vacancy, "backoff", reason, until=until)


def _one_at_a_time(filling: _Filling, vacancy: Vacancy) -> Hold | None:
    """Hold under the gradual strategy, which does not apply while nothing serves at all."""
    item = filling.item
    gradual = item.deployment.scaling_strategy is ScalingStrategy.GRADUAL
    if not gradual or (item.rollout is not None and item.rollout.active):
        return None
    coming = next(iter(filling.coming), None)
    if coming is None and filling.launched:
        coming = filling.launched[0].replica.id
    if not filling.serving or coming is None:
        return None
    reason = f"scaling is gradual: replica {coming} has to be ready first"
    return _hold(item, vacancy, "gradual", reason)


def _alone(filling: _Filling, vacancy: Vacancy) -> Hold | None:
    """Hold until what gave way is really gone, where nothing new may come beside it."""
    layout = filling.layout
    if layout.share.room is not Room.ALL or layout.older or not filling.earlier:
        return None
    reason = f"recreate: {filling.earlier} earlier replicas have to end first"
    return _hold(filling.item, vacancy, "swap", reason)


def _going_back(filling: _Filling, vacancy: Vacancy) -> Hold | None:
    """Hold what belongs to a rollout that is given up at this very moment."""
    action = filling.course.action
    if not isinstance(action, Advance) or action.after.phase is not RolloutPhase.ROLLED_BACK:
        return None
    return _hold(filling.item, vacancy, "swap", action.message)


_CHECKS: Sequence[Callable[[_Filling, Vacancy], Hold | None]] = (
    _engine_silent,
    _going_back,
    _backing_off,
    _one_at_a_time,
    _alone,
)


def _hold(
    item: DesiredDeployment,
    vacancy: Vacancy,
    kind: str,
    reason: str,
    *,
    details: tuple[str, ...] = (),
    until: float | None = None,
) -> Hold:
    return Hold(
        deployment_id=item.deployment.id,
        revision=vacancy.revision.number,
        slot=vacancy.slot,
        kind=kind,
        reason=reason,
        details=details,
        until=until,
    )


def _surge_words(filling: _Filling) -> str:
    return f"at most {filling.layout.share.limit} replicas exist at once during this rollout"


def _turn_words(filling: _Filling) -> str | None:
    """Return what comes before anything more gives way in this tick; None: nothing does."""
    given = next((one for one in filling.decisions if isinstance(one, Yield)), None)
    if given is not None:
        names = ", ".join(replica.id for replica in given.replicas)
        return f"its turn comes after {names} gave way"
    if filling.launched and filling.layout.older:
        return f"replica {filling.launched[0].replica.id} has to be ready first"
    return None


def _gives_way_words(made: Yield) -> str:
    names = ", ".join(replica.id for replica in made.replicas)
    return f"waits for the room of {names}, which is drained for it"


def _withheld(item: DesiredDeployment, layout: Layout, vacancy: Vacancy, moment: Moment) -> Hold:
    demand = moment.sight.observed.demand.get(item.deployment.id)
    work = "nothing is known" if demand is None else f"{demand:.2f} replicas' worth of work"
    goal = item.revision.spec.scaling.target_utilization
    reason = (
        f"scaling is gradual: the step after {layout.target} of {layout.asked} is taken when all"
        f" of them are ready and used beyond {goal:.0%}"
    )
    return _hold(item, vacancy, "gradual", reason, details=(f"lately: {work}",))


def _replica(
    item: DesiredDeployment, vacancy: Vacancy, placement: Placement, known: int, now: float
) -> Replica:
    """Return a new replica of a slot; `known` is how many of its revision the slot has had."""
    deployment, number = item.deployment, vacancy.revision.number
    suffix = _suffix(deployment.id, vacancy, known, now)
    return Replica(
        id=replica_id_for(deployment.id, number, vacancy.slot, suffix),
        deployment_id=deployment.id,
        organization=deployment.organization,
        revision=number,
        slot=vacancy.slot,
        state=ReplicaState.PENDING,
        placement=placement,
        created_at=now,
    )


def _suffix(deployment_id: str, vacancy: Vacancy, known: int, now: float) -> str:
    """Return what tells this replica from those before it: the same for the same decision."""
    text = f"{deployment_id}/{vacancy.revision.number}/{vacancy.slot}/{now!r}/{known}"
    return hashlib.blake2s(text.encode(), digest_size=4).hexdigest()
