"""What holds for a plan made of any state at all, reachable or not; and for what is told of it."""

from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.plan import (
    Adopt,
    Drain,
    Fail,
    FinishDelete,
    Launch,
    MarkRunning,
    ObservedContainer,
    Probe,
    RemoveOrphan,
    Resume,
    Stop,
)
from prsmd.core.reconcile import Policy, reconcile
from prsmd.core.routes import routes
from prsmd.core.sight import Sight
from prsmd.core.status import derive
from prsmd.domain.deployment import DeploymentStatus, ScalingStrategy
from prsmd.domain.replica import TRANSITIONS, ReplicaState
from tests.core.cases import NOW, container, deployment, failed, observed, replica

S = ReplicaState
# The state that each action moves a replica to, and the states that it makes sense in.
MOVES = {Adopt: S.STARTING, MarkRunning: S.RUNNING, Drain: S.DRAINING, Stop: S.STOPPED}


@st.composite
def items(draw, id_):
    rows = [
        replica(
            draw(st.integers(0, 3)),
            draw(st.sampled_from([S.PENDING, S.STARTING, S.RUNNING, S.DRAINING])),
            id=f"{id_}-{number}",
            deployment_id=id_,
            revision=draw(st.integers(1, 2)),
            started_at=NOW - draw(st.floats(0, 900)),
        )
        for number in range(draw(st.integers(0, 5)))
    ]
    ended = [
        failed(slot, number, deployment_id=id_, revision=2, id=f"{id_}-failed-{slot}-{number}")
        for slot in range(2)
        for number in range(draw(st.integers(0, 4)))
    ]
    return deployment(
        *ended,
        *rows,
        id=id_,
        asked=draw(st.integers(0, 4)),
        revision=2,
        deleting=draw(st.booleans()),
        scaling_strategy=draw(st.sampled_from(ScalingStrategy)),
    )


@st.composite
def moments(draw):
    desired = [draw(items(f"deploy_{number}")) for number in range(draw(st.integers(0, 3)))]
    rows = [row for item in desired for row in item.replicas]
    boxes = [
        container(
            row,
            running=(running := draw(st.booleans())),
            exit_code=None if running else draw(st.sampled_from([None, 0, 1, 137])),
        )
        for row in rows
        if draw(st.booleans())
    ]
    boxes += [
        ObservedContainer(id=f"c-x{number}", replica_id=f"x{number}", running=True)
        for number in range(draw(st.integers(0, 2)))
    ]
    probes = {
        row.id: Probe(ready=draw(st.booleans()), failures=draw(st.integers(0, 4))) for row in rows
    }
    sees = observed(
        *boxes,
        probes=probes,
        in_flight={row.id: draw(st.integers(0, 2)) for row in rows},
        working=frozenset(row.id for row in rows if draw(st.integers(0, 4)) == 0),
    )
    return desired, sees


def decide(desired, sees):
    return reconcile(desired, sees, NOW, Policy())


@given(moments())
def test_no_replica_gets_two_actions_and_none_an_impossible_one(case):
    plan = decide(*case)
    about = [action for action in plan.actions if hasattr(action, "replica")]
    assert len({action.replica.id for action in about}) == len(about)
    for action in about:
        if type(action) in MOVES:
            assert MOVES[type(action)] in TRANSITIONS[action.replica.state]


@given(moments())
def test_only_what_exists_is_acted_on_and_only_what_does_not_is_launched(case):
    desired, sees = case
    rows = {row.id: row for item in desired for row in item.replicas}
    for action in decide(desired, sees).actions:
        if isinstance(action, Launch):
            assert action.replica.id not in rows
        elif hasattr(action, "replica"):
            assert rows[action.replica.id].active


@given(moments())
def test_work_in_progress_is_only_ever_interrupted_to_give_a_launch_up(case):
    desired, sees = case
    for action in decide(desired, sees).actions:
        if hasattr(action, "replica") and action.replica.id in sees.working:
            assert isinstance(action, Drain)
            assert action.replica.state is S.PENDING


@given(moments())
def test_every_container_without_an_active_replica_goes_and_no_other(case):
    desired, sees = case
    active = {row.id for item in desired for row in item.replicas if row.active}
    orphans = {box.id for box in sees.containers if box.replica_id not in active | sees.working}
    plan = decide(desired, sees)
    removed = [a.container_id for a in plan.actions if isinstance(a, RemoveOrphan)]
    assert sorted(removed) == sorted(orphans)


@given(moments())
def test_a_replica_ends_only_for_a_reason_in_words(case):
    for action in decide(*case).actions:
        if isinstance(action, Fail):
            assert action.cause.message
        elif isinstance(action, Drain | Stop | Resume | Launch | RemoveOrphan):
            assert action.reason


@given(moments())
def test_a_silent_engine_ends_and_starts_nothing(case):
    desired, sees = case
    blind = type(sees)(node=sees.node, containers=None, probes=sees.probes, working=sees.working)
    plan = decide(desired, blind)
    allowed = Drain | MarkRunning | FinishDelete
    assert all(isinstance(action, allowed) for action in plan.actions)
    assert {hold.kind for hold in plan.holds} <= {"engine"}


@given(moments())
def test_a_deployment_is_forgotten_only_when_nothing_of_it_is_active(case):
    desired, sees = case
    by_id = {item.deployment.id: item for item in desired}
    for action in decide(desired, sees).actions:
        if isinstance(action, FinishDelete):
            item = by_id[action.deployment_id]
            assert item.deployment.deleting
            assert not any(row.active for row in item.replicas)


@given(moments())
def test_traffic_goes_only_to_ready_replicas_that_stay_and_always_where_there_is_one(case):
    desired, sees = case
    plan, sight = decide(desired, sees), Sight.of(sees)
    table = routes(desired, sees, plan)
    leaving = {a.replica.id for a in plan.actions if isinstance(a, Drain | Stop | Fail)}
    for item in desired:
        if item.deployment.deleting:
            assert item.deployment.id not in table.routes
            continue
        route = table.routes[item.deployment.id]
        able = {r.id for r in item.replicas if sight.ready(r) and r.id not in leaving}
        targets = {target.replica_id for target in route.targets}
        assert targets <= able
        assert bool(targets) == bool(able)
        assert bool(route.waiting_for) == (not targets)
        assert not (route.hopeless and targets)


@given(moments())
def test_the_status_never_contradicts_its_counts(case):
    desired, sees = case
    holds = decide(desired, sees).holds
    for item in desired:
        view = derive(item, sees, holds)
        assert 0 <= view.ready_replicas <= view.available_replicas
        assert view.ready_replicas <= view.desired_replicas
        assert view.message
        match view.status:
            case DeploymentStatus.RUNNING:
                assert view.ready_replicas == view.desired_replicas > 0
            case DeploymentStatus.FAILED | DeploymentStatus.DEPLOYING:
                assert view.available_replicas == 0 < view.desired_replicas
            case DeploymentStatus.IDLE:
                assert view.desired_replicas == 0
            case DeploymentStatus.DELETING:
                assert item.deployment.deleting
        if view.health_status == "healthy":
            assert view.available_replicas > 0
        if view.health_status == "unhealthy":
            assert view.available_replicas == 0


@given(moments())
def test_a_hopeless_route_is_a_deployment_that_serves_nothing_and_says_why(case):
    desired, sees = case
    plan = decide(desired, sees)
    for id_, route in routes(desired, sees, plan).routes.items():
        if route.hopeless:
            mine = [hold for hold in plan.holds if hold.deployment_id == id_]
            assert mine
            assert all(hold.reason in route.waiting_for for hold in mine)
