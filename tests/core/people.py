"""What people do to the model of the world: the same changes that the services store."""

from prsmd.core.slots import gradual_target
from prsmd.core.steps import first_level
from prsmd.domain.deployment import ScalingStrategy, same_container
from prsmd.domain.rollout import Rollout, RolloutOptions, RolloutPhase
from tests.core.cases import changed, deployment

TRYING, REPLACING = RolloutPhase.TRYING, RolloutPhase.REPLACING
COMPLETED, ABORTED = RolloutPhase.COMPLETED, RolloutPhase.ABORTED
ROLLED_BACK, SUPERSEDED = RolloutPhase.ROLLED_BACK, RolloutPhase.SUPERSEDED


class People:
    """Changes of what is desired. `desired` holds all revisions of each deployment."""

    def deploy(self, **spec):
        self._count += 1
        item = deployment(
            id=f"deploy_{self._count}", created_at=float(self._count), stable_revision=None, **spec
        )
        self.desired[item.deployment.id] = item
        return item.deployment.id

    def change(self, id_, **values):
        item = self.desired[id_]
        self.desired[id_] = changed(item, deployment=changed(item.deployment, **values))

    def scale(self, id_, replicas, strategy=ScalingStrategy.IMMEDIATE):
        active = sum(row.active and row.deployment_id == id_ for row in self.rows.values())
        self.change(
            id_,
            asked_replicas=replicas,
            scaling_strategy=strategy,
            gradual_level=first_level(strategy, active, replicas),
        )

    def update(self, id_, fate, *, resources=None, image=None, **options):
        """Ask for a new container; `image`: one under a name that is known (a tag that moved)."""
        number = self._next_number(id_)
        self.fates[id_, number] = fate
        spec = changed(self.desired[id_].revision.spec, image=image or f"model:{number}")
        if resources is not None:
            spec = changed(spec, resources=resources)
        self._succeed(id_, spec, None, options)

    def update_in_place(self, id_):
        """Ask for what needs no new container: what runs goes on running."""
        item = self.desired[id_]
        number = self._next_number(id_)
        self.fates[id_, number] = self.fates.get((id_, item.revision.number), self.fate_of_all)
        metadata = changed(item.revision.spec.metadata, description=f"revision {number}")
        spec = changed(item.revision.spec, metadata=metadata)
        self._succeed(id_, spec, item.revision.image_digest, {})

    def roll_back(self, id_, number, **options):
        """Ask for an earlier revision's content: what is under way from it is aborted."""
        item = self.desired[id_]
        goal = next((one for one in item.others if one.number == number), None)
        if goal is None:
            return
        if (
            item.rollout is not None
            and item.rollout.active
            and item.rollout.from_revision == number
        ):
            self.abort(id_)
            return
        new = self._next_number(id_)
        self.fates[id_, new] = self.fates.get((id_, number), self.fate_of_all)
        self._succeed(id_, goal.spec, goal.image_digest, options)

    def abort(self, id_):
        """Give a rollout up, as a person does."""
        rollout = self.under_way(id_)
        if rollout is not None:
            self.store_rollout(changed(rollout, phase=ABORTED, finished_at=self.now))

    def pause(self, id_, *, paused=True):
        rollout = self.under_way(id_)
        if rollout is not None:
            self.store_rollout(changed(rollout, paused=paused))

    def promote(self, id_):
        rollout = self.under_way(id_)
        if rollout is not None and rollout.phase is TRYING:
            self.store_rollout(
                changed(rollout, phase=REPLACING, step_since=None, weight=None, paused=False)
            )

    def weigh(self, id_, weight):
        rollout = self.under_way(id_)
        if rollout is not None and rollout.phase is TRYING:
            self.store_rollout(changed(rollout, weight=weight))

    def under_way(self, id_):
        rollout = self.desired[id_].rollout
        return rollout if rollout is not None and rollout.active else None

    def target(self, id_):
        return gradual_target(self.desired[id_])

    def revision(self, id_, number):
        item = self.desired[id_]
        known = (item.revision, *item.others)
        return next((one for one in known if one.number == number), None)

    def store_rollout(self, after):
        """Store a rollout; where it goes back, its deployment does too."""
        id_ = after.deployment_id
        self.desired[id_] = changed(self.desired[id_], rollout=after)
        if after.phase is COMPLETED:
            self.change(id_, stable_revision=self.desired[id_].deployment.revision)
        elif after.phase in {ROLLED_BACK, ABORTED}:
            self.want(id_, self.revision(id_, after.from_revision))

    def want(self, id_, revision):
        item = self.desired[id_]
        known = {one.number: one for one in (*item.others, item.revision, revision)}
        others = tuple(one for one in known.values() if one.number != revision.number)
        self.desired[id_] = changed(item, revision=revision, others=others)
        self.change(id_, revision=revision.number)

    def _next_number(self, id_):
        item = self.desired[id_]
        return max(one.number for one in (item.revision, *item.others)) + 1

    def _succeed(self, id_, spec, digest, options):
        """Want a new revision: in place where it runs the same container, else by a rollout."""
        item = self.desired[id_]
        revision = changed(
            item.revision, number=self._next_number(id_), spec=spec, image_digest=digest
        )
        under_way = self.under_way(id_)
        if same_container(item.revision, revision):
            if under_way is not None:
                self.store_rollout(changed(under_way, to_revision=revision.number))
            self.want(id_, revision)
            return
        goes_back_to = item.deployment.stable_revision or item.deployment.revision
        if under_way is not None:
            goes_back_to = under_way.from_revision
        self._rollouts += 1
        begun = Rollout(
            deployment_id=id_,
            number=self._rollouts,
            from_revision=goes_back_to,
            to_revision=revision.number,
            options=RolloutOptions(**options),
            started_at=self.now,
            started_by="someone",
        )
        self.want(id_, revision)
        self.store_rollout(begun)
