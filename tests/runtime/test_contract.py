"""What every runtime must do. One suite for Docker, bare processes and the fake."""

import asyncio
import contextlib
import dataclasses

import pytest

from prsmd.domain.errors import (
    ConflictError,
    EngineError,
    EngineNotFoundError,
    ImageUnavailableError,
)
from prsmd.runtime import archive
from prsmd.runtime.base import ContainerState, LogQuery
from tests.runtime.harness import GPUS, launch_of, until_exited, until_line
from tests.support import archives


async def read(runtime, container, **query):
    return [line async for line in runtime.logs(container.id, LogQuery(**query))]


async def texts(runtime, container, **query):
    return [line.text for line in await read(runtime, container, **query)]


def skip_unless_it_follows(harness):
    if not harness.follows:
        pytest.skip("a follow misses its first moment here: docs/decisions/0009-podman.md")


async def test_launching_twice_gives_the_same_container(runtime, model):
    first = await runtime.launch(launch_of(model))
    second = await runtime.launch(launch_of(model))
    assert first.id == second.id
    assert [found.id for found in await runtime.list()] == [first.id]


async def test_launching_at_once_makes_one_container(runtime, model):
    launched = await asyncio.gather(
        *(runtime.launch(launch_of(model)) for _ in range(4)), return_exceptions=True
    )
    ids = {found.id for found in launched if not isinstance(found, Exception)}
    assert len(ids) == 1
    assert len(await runtime.list()) == 1


async def test_launch_refuses_to_take_over_a_container_with_other_labels(runtime, model):
    launch = launch_of(model)
    await runtime.launch(launch)
    other = dataclasses.replace(launch, labels=dataclasses.replace(launch.labels, slot=7))
    with pytest.raises(EngineError, match="not this replica's"):
        await runtime.launch(other)


async def test_list_shows_labels_state_and_endpoint(runtime, model):
    launch = launch_of(model)
    launched = await runtime.launch(launch)
    (listed,) = await runtime.list()
    assert listed == launched
    assert listed.labels == launch.labels
    assert listed.state is ContainerState.RUNNING
    assert listed.endpoint is not None


async def test_a_model_answers_on_its_endpoint(runtime, harness, model):
    container = await runtime.launch(launch_of(model))
    await harness.ready(runtime, container)
    environment = await harness.environment(container)
    assert environment["PORT"] == str(container.endpoint.port)


async def test_gpus_and_port_cannot_be_chosen_by_the_client(runtime, harness, model):
    asked = {"NVIDIA_VISIBLE_DEVICES": "all", "CUDA_DEVICE_ORDER": "FASTEST_FIRST", "PORT": "1"}
    container = await runtime.launch(launch_of(model, A="b", **asked))
    await harness.ready(runtime, container)
    environment = await harness.environment(container)
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert environment["PORT"] == str(container.endpoint.port)
    assert environment["A"] == "b"


async def test_a_replica_sees_exactly_its_gpus(runtime, harness, model):
    container = await runtime.launch(launch_of(model, gpus=GPUS))
    await harness.ready(runtime, container)
    environment = await harness.environment(container)
    assert environment["NVIDIA_VISIBLE_DEVICES"] == ",".join(GPUS)


async def test_secrets_are_files_and_only_their_paths_are_variables(runtime, harness, model):
    values = {"TOKEN": b"s3cr3t-value", "CERT": b"two\nlines\n"}
    launch = dataclasses.replace(launch_of(model), secrets=values)
    container = await runtime.launch(launch)
    await harness.ready(runtime, container)
    for name, value in values.items():
        assert await harness.secret(container, name) == value.decode()
    environment = await harness.environment(container)
    assert not any("s3cr3t" in text for text in environment.values())
    assert "s3cr3t" not in repr(launch)
    same = await runtime.launch(dataclasses.replace(launch, secrets={"TOKEN": b"later"}))
    assert same.id == container.id
    assert await harness.secret(container, "TOKEN") == "s3cr3t-value"


async def test_an_exit_code_stays_visible_until_removed(runtime, harness, model):
    container = await runtime.launch(launch_of(model))
    await harness.ready(runtime, container)
    with contextlib.suppress(ConnectionError):
        await harness.end(container, 42)
    ended = await until_exited(runtime)
    assert (ended.exit_code, ended.out_of_memory, ended.endpoint) == (42, False, None)
    assert ended.finished_at is not None
    assert (await runtime.launch(launch_of(model))).state is ContainerState.EXITED
    await runtime.stop(ended.id, 1)
    assert await runtime.list() == []


async def test_the_last_words_of_a_crashed_container_can_be_read(runtime, harness, model):
    container = await runtime.launch(launch_of(model))
    await harness.ready(runtime, container)
    await harness.print_lines(container, "cannot go on", stream="stderr")
    with contextlib.suppress(ConnectionError):
        await harness.end(container, 1)
    await until_exited(runtime)
    (line,) = await read(runtime, container, tail=1)
    assert (line.stream, line.text) == ("stderr", "cannot go on")


async def test_stop_removes_and_is_content_with_what_is_gone(runtime, model):
    container = await runtime.launch(launch_of(model))
    await runtime.stop(container.id, 5)
    assert await runtime.list() == []
    await runtime.stop(container.id, 5)


async def test_stop_leaves_containers_of_others_alone(runtime, harness, model):
    theirs = harness.runtime("theirs")
    try:
        container = await theirs.launch(launch_of(model, instance="theirs"))
        with pytest.raises(EngineError, match="not of this instance"):
            await runtime.stop(container.id, 0)
        (left,) = await theirs.list()
        assert left.state is ContainerState.RUNNING
        await theirs.stop(container.id, 0)
    finally:
        await theirs.close()


async def test_containers_of_others_are_invisible(runtime, harness, model):
    theirs = harness.runtime("theirs")
    try:
        container = await theirs.launch(launch_of(model, instance="theirs"))
        assert await runtime.list() == []
        with pytest.raises(EngineError, match="not of this instance"):
            await texts(runtime, container)
        with pytest.raises(EngineError, match="not this replica's"):
            await runtime.launch(launch_of(model))
        await theirs.stop(container.id, 0)
    finally:
        await theirs.close()


async def test_a_new_driver_finds_what_an_old_one_left(runtime, harness, model):
    old = harness.runtime()
    launched = await old.launch(launch_of(model))
    await harness.ready(old, launched)
    await old.close()
    assert await runtime.list() == [launched]
    await harness.print_lines(launched, "still here")
    await until_line(runtime, launched, "still here")
    assert (await texts(runtime, launched, tail=1)) == ["still here"]


async def test_logs_give_the_last_lines_oldest_first(runtime, harness, model):
    container = await runtime.launch(launch_of(model))
    await harness.ready(runtime, container)
    await harness.print_lines(container, *(f"line {number}" for number in range(20)))
    async with contextlib.aclosing(runtime.logs(container.id, LogQuery(follow=True))) as lines:
        async for line in lines:
            if line.text == "line 19":
                break
    assert await texts(runtime, container, tail=3) == ["line 17", "line 18", "line 19"]
    assert len(await texts(runtime, container)) == 21
    assert await texts(runtime, container, tail=0) == []


async def test_logs_since_a_moment_leave_out_what_was_before(runtime, harness, model):
    skip_unless_it_follows(harness)
    container = await runtime.launch(launch_of(model))
    await harness.ready(runtime, container)
    await harness.print_lines(container, "before")
    before = await anext(
        line
        async for line in runtime.logs(container.id, LogQuery(follow=True))
        if line.text == "before"
    )
    await harness.print_lines(container, "after")
    following = runtime.logs(container.id, LogQuery(since=before.at + 1e-6, follow=True))
    async with contextlib.aclosing(following) as lines:
        assert (await anext(lines)).text == "after"


async def test_following_logs_ends_with_the_container(runtime, harness, model):
    skip_unless_it_follows(harness)
    container = await runtime.launch(launch_of(model))
    await harness.ready(runtime, container)
    seen = []
    async for line in runtime.logs(container.id, LogQuery(tail=1, follow=True)):
        seen.append(line.text)
        if line.text == "listening":
            await harness.print_lines(container, "last")
        if line.text == "last":
            with contextlib.suppress(ConnectionError):
                await harness.end(container, 0)
    assert seen == ["listening", "last"]


async def test_followers_that_are_cancelled_leave_the_driver_usable(runtime, harness, model):
    container = await runtime.launch(launch_of(model))
    await harness.ready(runtime, container)

    async def follow(begun):
        async for _ in runtime.logs(container.id, LogQuery(follow=True)):
            begun.set()

    for _ in range(20):
        begun = asyncio.Event()
        follower = asyncio.create_task(follow(begun), name="follower")
        await begun.wait()
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower
    assert len(await runtime.list()) == 1


async def test_logs_of_an_unknown_container_say_that_it_is_gone(runtime):
    with pytest.raises(EngineNotFoundError):
        await texts(runtime, dataclasses.make_dataclass("Gone", ["id"])("f" * 64))


async def test_events_hint_at_changes(runtime, model):
    async with contextlib.aclosing(runtime.events()) as events:
        await anext(events)
        container = await runtime.launch(launch_of(model))
        await anext(events)
        await runtime.stop(container.id, 0)
        await anext(events)


async def test_an_image_that_is_here_resolves_to_its_content(runtime, harness):
    image = await runtime.images.resolve(harness.image)
    assert image.reference == harness.image
    assert "sha256:" in image.digest
    assert image.size_bytes > 0
    assert harness.image in {found.reference for found in await runtime.images.list()}


async def test_an_unknown_image_resolves_to_nothing_and_cannot_be_pulled(runtime):
    unknown = "127.0.0.1:1/nobody/nothing:1"
    assert await runtime.images.resolve(unknown) is None
    with pytest.raises(ImageUnavailableError, match="nothing"):
        await runtime.images.pull(unknown, lambda _: None)


@pytest.mark.parametrize("name", ["../secret", "/etc", "a/../../b", "", "x y", "A" * 600, "a%2e"])
async def test_a_reference_leads_nowhere_else(runtime, name):
    assert await runtime.images.resolve(name) is None
    with pytest.raises(ImageUnavailableError):
        await runtime.images.pull(name, lambda _: None)


async def test_launching_an_image_that_is_gone_says_so(runtime):
    with pytest.raises(ImageUnavailableError):
        await runtime.launch(launch_of("sha256:" + "0" * 64))


# Images that come and go

MOST = 1 << 30


@pytest.fixture
async def shelf(runtime, harness):
    """Give the images of a runtime that takes archives; what a test loads is removed."""
    if not runtime.images.loads:
        pytest.skip("it runs bundles, which nobody loads")
    if not harness.keeps_images:
        pytest.skip("not tried here: docs/decisions/0009-podman.md")
    before = {image.id for image in await runtime.images.list()}
    yield runtime.images
    for image in await runtime.images.list():
        if image.id not in before:
            await runtime.images.remove(image.id)


async def loaded(images, tmp_path, files, name=None):
    path = archives.written(tmp_path / "archive.tar", files)
    return await images.load(archive.verify(path, MOST, name), lambda _: None)


async def test_a_runtime_says_whether_it_loads_archives_and_holds_to_it(runtime, tmp_path):
    if runtime.images.loads:
        pytest.skip("it does")
    with pytest.raises(ConflictError, match="bundles"):
        await loaded(runtime.images, tmp_path, archives.saved())


@pytest.mark.parametrize(
    "files",
    [
        archives.saved("prsmd-test/loaded:1"),
        archives.laid_out("prsmd-test/loaded:1"),
        archives.laid_out("prsmd-test/loaded:1", compressed=False),
        archives.saved("prsmd-test/loaded:1", [archives.some_layer(), archives.some_layer()]),
    ],
    ids=["docker save", "OCI", "OCI, plain", "two layers"],
)
async def test_an_archive_of_either_form_is_here_after_its_load(shelf, tmp_path, files):
    [image] = await loaded(shelf, tmp_path, files)
    assert image.reference == "prsmd-test/loaded:1"
    assert image.id == image.digest == archives.image_id(files)
    assert image.size_bytes > 0
    assert await shelf.resolve("prsmd-test/loaded:1") == image
    assert (await shelf.resolve(image.digest)).id == image.id
    listed = [one for one in await shelf.list() if one.id == image.id]
    assert [(one.reference, one.in_use) for one in listed] == [("prsmd-test/loaded:1", False)]


async def test_an_image_without_a_name_is_known_by_its_id(shelf, tmp_path):
    files = archives.laid_out(None)
    [image] = await loaded(shelf, tmp_path, files)
    assert image.reference == image.id == archives.image_id(files)
    assert image.id in {one.reference for one in await shelf.list()}


async def test_a_name_that_moves_leaves_the_old_content_here(shelf, tmp_path):
    [first] = await loaded(shelf, tmp_path, archives.saved("prsmd-test/moved:1"))
    [second] = await loaded(shelf, tmp_path, archives.saved("prsmd-test/moved:1"))
    assert (await shelf.resolve("prsmd-test/moved:1")).id == second.id
    assert (await shelf.resolve(first.digest)).id == first.id
    assert {first.id, second.id} <= {one.id for one in await shelf.list()}


async def test_a_removed_image_is_gone_under_every_name_and_may_be_removed_again(shelf, tmp_path):
    files = archives.saved("prsmd-test/removed:1")
    [image] = await loaded(shelf, tmp_path, files)
    await loaded(shelf, tmp_path, files, "prsmd-test/also:1")
    assert {"prsmd-test/removed:1", "prsmd-test/also:1"} == {
        one.reference for one in await shelf.list() if one.id == image.id
    }

    await shelf.remove(image.id)
    await shelf.remove(image.id)

    assert image.id not in {one.id for one in await shelf.list()}
    for name in ("prsmd-test/removed:1", "prsmd-test/also:1", image.id):
        assert await shelf.resolve(name) is None


async def test_an_image_with_a_container_is_listed_as_in_use_and_not_removed(
    runtime, harness, model, shelf
):
    image = await shelf.resolve(harness.image)
    await runtime.launch(launch_of(model))
    assert {one.in_use for one in await shelf.list() if one.id == image.id} == {True}
    with pytest.raises(EngineError, match="left alone"):
        await shelf.remove(image.id)
    assert await shelf.resolve(harness.image) == image


@pytest.mark.parametrize("name", ["../x", "busybox", "", "sha256:x"])
async def test_only_an_id_names_what_is_removed(runtime, name):
    before = {image.reference for image in await runtime.images.list()}
    with contextlib.suppress(EngineError):
        await runtime.images.remove(name)
    assert {image.reference for image in await runtime.images.list()} == before


async def test_what_no_registry_tells_is_unknown(runtime):
    assert await runtime.images.remote_digest("127.0.0.1:1/nobody/nothing:1") is None
    assert await runtime.images.remote_digest("../x") is None


async def test_free_space_is_a_number_where_it_can_be_seen(runtime):
    free = await runtime.images.free_bytes()
    assert free is None or free > 0
