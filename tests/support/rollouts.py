"""How a test asks for updates and follows the rollouts that they begin."""

from typing import Any

from tests.support.daemon import Answer, Daemon

MODEL = "custom_model"
ENDS = {"completed", "rolled_back", "aborted", "superseded"}


def call(daemon: Daemon, method: str, what: str, body: Any = None, **options: Any) -> Answer:
    """Make a request about the model: `what` is the rest of its path."""
    return daemon.call(method, f"/v1/custom-models/{MODEL}{what}", body, **options)


def update(daemon: Daemon, config: dict[str, Any], **rollout: Any) -> Any:
    """Update the model's deployment_config; return the answer. `rollout` says how."""
    body: dict[str, Any] = {"deployment_config": config}
    if rollout:
        body["rollout"] = rollout
    answer = call(daemon, "PUT", "", body)
    assert answer.status in {200, 202}, answer
    return answer.json


def rollout(daemon: Daemon) -> Any:
    """Return the model's latest rollout as the API tells it."""
    answer = call(daemon, "GET", "/rollout")
    assert answer.status == 200, answer
    return answer.json["rollout"]


def steer(daemon: Daemon, verb: str) -> Any:
    """Pause, resume, promote or abort the rollout."""
    answer = call(daemon, "POST", f"/rollout/{verb}")
    assert answer.status in {200, 202}, answer
    return answer.json


def roll_back(daemon: Daemon, **body: Any) -> Any:
    """Go back to the last good revision, or as the body says."""
    answer = call(daemon, "POST", "/rollback", body)
    assert answer.status in {200, 202}, answer
    return answer.json


def until_phase(daemon: Daemon, *phases: str, seconds: float = 60) -> Any:
    """Return the latest rollout once it is in one of the phases; fail when it ends otherwise."""

    def there() -> Any:
        found = rollout(daemon)
        assert found["phase"] in {*phases} or found["phase"] not in ENDS, found
        return found["phase"] in phases and found

    return daemon.until(f"the rollout is {' or '.join(phases)}", there, seconds)
