"""What the operator's rules refuse, for whom, and in which words."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.guard import EVERYONE, ContainerRules, breach
from prsmd.domain.spec import Resources, Security, Spec

SPEC = Spec(
    image="company/legal:v1",
    model_type="custom",
    resources=Resources(cpu_millis=1000, memory_bytes=1024),
)
DIGEST = "@sha256:" + "0" * 64


def spec(image="company/legal:v1", **security):
    return dataclasses.replace(SPEC, image=image, security=Security(**security))


def test_the_safe_defaults_break_no_rule_of_a_fresh_appliance():
    assert breach(ContainerRules(), "acme", SPEC) is None


def test_a_way_out_is_for_the_organizations_that_are_named():
    rules = ContainerRules(egress=frozenset({"acme"}))
    assert breach(rules, "acme", spec(egress=True)) is None
    assert breach(rules, "rival", spec()) is None
    refused = breach(rules, "rival", spec(egress=True))
    assert refused.forbidden
    assert refused.field == "deployment_config.security.egress"
    assert "not allowed to rival: [security] allow_egress" in refused.reason


def test_everyone_means_all_and_nobody_is_the_default_for_a_way_out():
    everyone = ContainerRules(egress=frozenset({EVERYONE}))
    assert breach(everyone, "anyone", spec(egress=True)) is None
    assert breach(ContainerRules(), "acme", spec(egress=True)) is not None


def test_a_writable_root_is_for_the_organizations_that_are_named():
    rules = ContainerRules(writable_root=frozenset({"acme"}))
    assert breach(rules, "acme", spec(writable_root=True)) is None
    refused = breach(rules, "rival", spec(writable_root=True))
    assert "[security] allow_writable_root" in refused.reason
    everyone = ContainerRules(writable_root=frozenset({EVERYONE}))
    assert breach(everyone, "rival", spec(writable_root=True)) is None
    assert breach(ContainerRules(), "acme", spec(writable_root=True)) is not None


def test_only_configured_runtime_classes_can_be_asked_for_and_they_are_named():
    rules = ContainerRules(runtime_classes=("runc", "runsc"))
    assert breach(rules, "acme", spec(runtime_class="runsc")) is None
    refused = breach(rules, "acme", spec(runtime_class="kata"))
    assert not refused.forbidden
    assert "known are: runc, runsc" in refused.reason
    assert "known are: none" in breach(ContainerRules(), "a", spec(runtime_class="runc")).reason


@pytest.mark.parametrize(
    ("allowed", "image", "may"),
    [
        ("docker.io", "company/legal:v1", True),
        ("docker.io", "docker.io/company/legal", True),
        ("docker.io", "evil.example/company/legal", False),
        ("docker.io/company", "company/legal:v1", True),
        ("docker.io/company", "company-evil/legal:v1", False),
        ("docker.io/company", "company:v1", False),
        ("docker.io/library", "python:3.11-slim", True),
        ("docker.io/library", "docker.io/library/python", True),
        ("docker.io/library/python", "python" + DIGEST, True),
        ("docker.io/library/python", "python3", False),
        ("reg.example:5000", "reg.example:5000/a/b:1", True),
        ("reg.example:5000", "reg.example/a/b:1", False),
        ("reg.example:5000/team", "reg.example:5000/team/b:1", True),
        ("reg.example:5000/team/", "reg.example:5000/team/b:1", True),
        ("reg.example:5000/team", "reg.example:5000/teamwork/b:1", False),
        ("reg.example", "evil.example/reg.example/b:1", False),
        ("localhost", "localhost/a:1", True),
        ("localhost", "localhost:5000/a:1", False),
        ("index.docker.io", "company/legal:v1", True),
        ("registry-1.docker.io/library", "python", True),
        ("docker.io/company", "index.docker.io/company/legal:v1", True),
        ("docker.io/company", "registry-1.docker.io/company/legal", True),
        ("docker.io/library", "registry.hub.docker.com/python", True),
        ("docker.io/company", "docker.io.evil.example/company/legal", False),
        ("reg.example", "reg.example:443/a:1", False),
        ("reg.example", "reg.example./a:1", False),
        ("xn--rg-example-d6a", "reg.example/a:1", False),
    ],
)
def test_where_an_image_comes_from(allowed, image, may):
    found = breach(ContainerRules(registries=(allowed,)), "acme", spec(image))
    assert (found is None) == may
    if found is not None:
        assert found.forbidden
        assert "[images] allowed_registries" in found.reason


def test_images_can_be_held_to_their_digests():
    rules = ContainerRules(require_digest=True)
    assert breach(rules, "acme", spec("a/b:v1" + DIGEST)) is None
    assert "[images] require_digest" in breach(rules, "acme", spec("a/b:v1")).reason


RULES = st.builds(
    ContainerRules,
    egress=st.frozensets(st.sampled_from(["acme", "rival", EVERYONE])),
    writable_root=st.frozensets(st.sampled_from(["acme", "rival", EVERYONE])),
    registries=st.lists(st.sampled_from(["docker.io", "reg.example"]), max_size=2).map(tuple),
    require_digest=st.booleans(),
    runtime_classes=st.lists(st.sampled_from(["runc", "runsc"]), max_size=2).map(tuple),
)
ASKED = st.builds(
    spec,
    st.sampled_from(["a/b", "reg.example/b" + DIGEST, "other.example/b"]),
    egress=st.booleans(),
    writable_root=st.booleans(),
    runtime_class=st.sampled_from([None, "runc", "runsc"]),
)


@given(RULES, ASKED)
def test_nothing_passes_that_any_one_rule_refuses(rules, asked):
    security = asked.security
    allowed = (
        (not security.egress or rules.egress & {"acme", EVERYONE})
        and (not security.writable_root or rules.writable_root & {"acme", EVERYONE})
        and security.runtime_class in {None, *rules.runtime_classes}
        and (not rules.require_digest or "@" in asked.image)
        and (
            not rules.registries
            or {"a/b": "docker.io"}.get(asked.image, asked.image.split("/")[0]) in rules.registries
        )
    )
    assert (breach(rules, "acme", asked) is None) == bool(allowed)
