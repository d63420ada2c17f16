"""Which images may go: never one that somebody needs."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.collect import Content, KeptRevision, Users, collect, kept_revisions
from prsmd.domain.deployment import Deployment, Revision
from prsmd.domain.image import (
    Brought,
    ImageOrigin,
    familiar,
    is_server,
    may_run,
    registry_of,
    server_name,
)
from prsmd.domain.rollout import Rollout, RolloutOptions, RolloutPhase
from prsmd.domain.spec import Resources, Spec

SPEC = Spec(image="legal", model_type="t", resources=Resources(cpu_millis=1, memory_bytes=1))
DEPLOYMENT = Deployment(
    id="d",
    organization="acme",
    model_id="custom_legal",
    model_name="legal",
    revision=9,
    asked_replicas=1,
    created_at=0.0,
    updated_at=0.0,
)


def revision(number, digest=None):
    return Revision(
        deployment_id="d",
        number=number,
        spec=SPEC,
        spec_hash="h",
        created_at=0.0,
        created_by="k",
        image_digest=digest,
    )


def content(id_="i", *names, in_use=False):
    return Content(id=id_, names=frozenset({id_, *names}), size_bytes=1, in_use=in_use)


def brought(id_="i", reference="legal:1", digest="legal@d", **changes):
    one = Brought(
        id=id_,
        reference=reference,
        digest=digest,
        organization="acme",
        origin=ImageOrigin.PULLED,
        private=False,
        by="k",
        at=0.0,
    )
    return dataclasses.replace(one, **changes)


def needs(*names):
    return KeptRevision(
        deployment_id="d",
        organization="acme",
        model_id="custom_legal",
        number=3,
        names=frozenset(names),
    )


def numbers(keep, rollout=None, running=(), **changes):
    deployment = dataclasses.replace(DEPLOYMENT, **changes)
    revisions = [revision(number) for number in range(1, 10)]
    return [kept.number for kept in kept_revisions(deployment, revisions, rollout, running, keep)]


def rollout(phase):
    return Rollout(
        deployment_id="d",
        number=1,
        from_revision=2,
        to_revision=4,
        options=RolloutOptions(),
        started_at=0.0,
        started_by="k",
        phase=phase,
    )


def test_the_last_revisions_are_kept():
    assert numbers(3) == [7, 8, 9]


def test_the_current_and_the_stable_one_are_kept_however_old():
    assert numbers(1, revision=5, stable_revision=2) == [2, 5, 9]


def test_what_a_rollout_goes_from_and_to_is_kept_until_it_has_ended():
    assert numbers(1, rollout(RolloutPhase.TRYING)) == [2, 4, 9]
    assert numbers(1, rollout(RolloutPhase.COMPLETED)) == [9]


def test_what_a_replica_runs_is_kept():
    assert numbers(1, running={3}) == [3, 9]


def test_an_unresolved_revision_keeps_what_its_name_means_now():
    [kept] = kept_revisions(DEPLOYMENT, [revision(9)], None, (), 1)
    assert kept.names == {"legal:latest"}
    [kept] = kept_revisions(DEPLOYMENT, [revision(9, "legal@sha256:1")], None, (), 1)
    assert kept.names == {"legal@sha256:1"}


@pytest.mark.parametrize(
    ("found", "known", "kept", "reason"),
    [
        (content(), [], [], "prsmd did not bring it"),
        (content(in_use=True), [brought()], [], "a container is made from it"),
        (content("i", "legal:1"), [brought()], [needs("legal:1")], "revision 3 of custom_legal"),
        (content("i", "legal@d"), [brought()], [needs("legal@d")], "revision 3"),
        (content("i"), [brought()], [needs("i")], "revision 3"),
        (content("i", "other:1"), [brought()], [], "also called other:1"),
    ],
)
def test_every_image_that_stays_says_why(found, known, kept, reason):
    [verdict] = collect([found], known, kept)
    assert not verdict.goes
    assert reason in verdict.kept_for


def test_what_nobody_needs_goes():
    [verdict] = collect([content("i", "legal:1", "legal@d")], [brought()], [needs("other")])
    assert verdict.goes


def test_what_was_loaded_goes_only_when_someone_asks():
    known = [brought(origin=ImageOrigin.LOADED)]
    assert collect([content()], known, [])[0].goes
    assert not collect([content()], known, [], pulled_only=True)[0].goes


names = st.sampled_from(["a", "b", "c", "d", "e", "f"])
contents = st.lists(
    st.builds(
        Content,
        id=names,
        names=st.frozensets(names, min_size=1),
        size_bytes=st.just(1),
        in_use=st.booleans(),
    ),
    unique_by=lambda one: one.id,
)
records = st.lists(
    st.builds(
        brought,
        id_=names,
        reference=names,
        digest=names,
        origin=st.sampled_from(ImageOrigin),
    )
)
needed = st.lists(st.frozensets(names, min_size=1).map(lambda some: needs(*some)))


@given(contents, records, needed, st.booleans())
def test_whatever_there_is_nothing_that_somebody_needs_goes(found, known, kept, pulled_only):
    verdicts = collect(found, known, kept, pulled_only=pulled_only)
    assert [verdict.content for verdict in verdicts] == found
    for verdict in verdicts:
        mine = [one for one in known if one.id == verdict.content.id]
        if verdict.goes:
            assert mine
            assert not verdict.content.in_use
            assert not any(revision.names & verdict.content.names for revision in kept)
        else:
            assert verdict.kept_for


@given(contents, records, needed)
def test_what_goes_by_itself_also_goes_when_asked(found, known, kept):
    alone = {v.content.id for v in collect(found, known, kept, pulled_only=True) if v.goes}
    asked = {v.content.id for v in collect(found, known, kept) if v.goes}
    assert alone <= asked


# Names and who may run what


def test_what_prsmd_did_not_bring_is_everyones():
    assert may_run("anyone", [])


@given(st.lists(st.tuples(st.sampled_from(["acme", "rival", "third"]), st.booleans())))
def test_what_was_private_to_others_is_not_run_unasked(known):
    rows = [brought(organization=name, private=private) for name, private in known]
    open_to_all = not known or any(not private for _, private in known)
    assert may_run("acme", rows) == (open_to_all or ("acme", True) in known)


@pytest.mark.parametrize(
    ("reference", "server"),
    [
        ("legal:1", "docker.io"),
        ("acme/legal:1", "docker.io"),
        ("docker.io/acme/legal", "docker.io"),
        ("registry.example/legal", "registry.example"),
        ("registry:5000/acme/legal@sha256:1", "registry:5000"),
        ("localhost/legal", "localhost"),
        ("index.docker.io/acme/legal", "docker.io"),
    ],
)
def test_the_server_that_a_reference_is_pulled_from(reference, server):
    assert registry_of(reference) == server


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("Registry.Example:5000", "registry.example:5000"),
        ("http://registry.example/v2/", "registry.example"),
        (" docker.io ", "docker.io"),
    ],
)
def test_one_server_has_one_name(written, meant):
    assert server_name(written) == meant
    assert is_server(meant)


@pytest.mark.parametrize(
    "text", ["", "a b", "a/b", "user@host", "host:0", "host:99999", "-x", "x-", "a..:1x", "[::1]"]
)
def test_what_names_no_server(text):
    assert not is_server(server_name(text))


@pytest.mark.parametrize(
    ("written", "known_as"),
    [
        ("legal", "legal:latest"),
        ("docker.io/library/legal", "legal:latest"),
        ("docker.io/acme/legal:1", "acme/legal:1"),
        ("host:5000/legal", "host:5000/legal:latest"),
        ("legal@sha256:1", "legal@sha256:1"),
        ("sha256:1", "sha256:1"),
    ],
)
def test_one_image_has_one_name(written, known_as):
    assert familiar(written) == known_as


NAMED = st.lists(st.frozensets(st.sampled_from("abcd"), max_size=3), max_size=8)


@given(NAMED, st.frozensets(st.sampled_from("abcd")))
def test_who_names_an_image_is_found_once_each_and_in_order(named, names):
    uses = [
        KeptRevision(
            deployment_id="d", organization="acme", model_id="m", number=number, names=each
        )
        for number, each in enumerate(named)
    ]
    assert Users(uses).of(names) == tuple(use for use in uses if use.names & names)
