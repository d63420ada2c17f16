"""Which changes of a spec need a new container, field by field."""

import dataclasses

import pytest

from prsmd.domain.deployment import Revision, same_container
from prsmd.domain.spec import (
    Metadata,
    Resources,
    Scaling,
    SecretUse,
    Security,
    Serving,
    Spec,
    container_part,
)

SPEC = Spec(
    image="company/legal:v1",
    model_type="classifier",
    resources=Resources(cpu_millis=1000, memory_bytes=1024),
    environment={"MODE": "fast"},
    command=("serve",),
    args=("--quiet",),
)
IN_PLACE = {
    "model_type": {"model_type": "translator"},
    "scaling": {"scaling": Scaling(min_replicas=3, max_replicas=4, target_utilization=0.5)},
    "metadata": {"metadata": Metadata(version="9.0.0", description="x", domains=("law",))},
    **{
        f"serving.{field}": {"serving": Serving(**{field: value})}
        for field, value in {
            "protocol": "other",
            "predict_path": "/predict",
            "health_path": "/up",
            "startup_timeout_seconds": 5.0,
            "request_timeout_seconds": 5.0,
            "max_concurrency": 1,
            "queue_depth": 0,
        }.items()
    },
}
NEW_CONTAINER = {
    "image": {"image": "company/legal:v2"},
    "cpu": {"resources": Resources(cpu_millis=2000, memory_bytes=1024)},
    "memory": {"resources": Resources(cpu_millis=1000, memory_bytes=2048)},
    "gpu": {"resources": Resources(cpu_millis=1000, memory_bytes=1024, gpu_millis=500)},
    "environment": {"environment": {"MODE": "slow"}},
    "command": {"command": ()},
    "args": {"args": ("--loud",)},
    "run_as_user": {"security": Security(run_as_user=1000)},
    "writable_root": {"security": Security(writable_root=True)},
    "egress": {"security": Security(egress=True)},
    "runtime_class": {"security": Security(runtime_class="runsc")},
    "secrets": {"secrets": {"TOKEN": SecretUse("token")}},
    "serving.port": {"serving": Serving(port=9000)},
}


def revision(spec: Spec = SPEC, digest: str | None = "sha256:1", number: int = 1) -> Revision:
    return Revision(
        deployment_id="deploy_1",
        number=number,
        spec=spec,
        spec_hash=str(number),
        created_at=float(number),
        created_by="key:x",
        image_digest=digest,
    )


@pytest.mark.parametrize("changes", IN_PLACE.values(), ids=IN_PLACE)
def test_what_is_told_to_a_running_container_needs_no_new_one(changes):
    assert same_container(revision(), revision(dataclasses.replace(SPEC, **changes), number=2))


@pytest.mark.parametrize("changes", NEW_CONTAINER.values(), ids=NEW_CONTAINER)
def test_what_a_container_is_made_from_needs_a_new_one(changes):
    assert not same_container(revision(), revision(dataclasses.replace(SPEC, **changes), number=2))


def test_every_field_of_a_spec_is_decided():
    named = {name.partition(".")[0] for name in (*IN_PLACE, *NEW_CONTAINER)}
    serving = {n.partition(".")[2] for n in (*IN_PLACE, *NEW_CONTAINER) if n.startswith("serving.")}
    resources = {"cpu", "memory", "gpu"}
    security = {"run_as_user", "writable_root", "egress", "runtime_class"}

    fields = {field.name for field in dataclasses.fields(Spec)}
    assert named - resources - security == fields - {"resources", "security"}
    assert serving == {field.name for field in dataclasses.fields(Serving)}
    assert security == {field.name for field in dataclasses.fields(Security)}


@pytest.mark.parametrize("digest", ["sha256:2", None])
def test_the_same_name_of_another_or_an_unknown_image_needs_a_new_container(digest):
    assert not same_container(revision(), revision(digest=digest, number=2))


def test_two_revisions_before_the_first_pull_are_the_same():
    assert same_container(revision(digest=None), revision(digest=None, number=2))


def test_the_container_part_of_a_container_part_is_itself():
    once = container_part(SPEC)
    assert container_part(once) == once
