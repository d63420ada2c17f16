"""What an image says of itself changes nothing of how its container is confined."""

import io

import pytest

from prsmd.runtime.docker import DockerRuntime, DockerSettings
from tests.runtime.harness import ask, launch_of, until_line
from tests.support.engine import MODEL_IMAGE

pytestmark = pytest.mark.engine
NAME = "prsmd-test/tricks:1"
TRICKS = f"""FROM {MODEL_IMAGE}
USER 0:0
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_MIG_CONFIG_DEVICES=all CUDA_VISIBLE_DEVICES=7
ENV LD_PRELOAD=/model/evil.so LD_AUDIT=/model/evil.so DOCKER_RESOURCE_GPU=all
ENV PORT=1 HOST=127.0.0.1 PRSMD_REPLICA_ID=another
VOLUME /run/secrets /var/lib/data /etc
EXPOSE 22 2375/tcp
HEALTHCHECK --interval=1s CMD touch /tmp/checked
STOPSIGNAL SIGCONT
LABEL prsmd.instance=theirs prsmd.organization=rival prsmd.replica=replica-9 prsmd.port=1
LABEL prsmd.deployment=deploy_rival prsmd.slot=9 prsmd.revision=9 prsmd.spec-hash=x
"""


@pytest.fixture
async def runtime(engine):
    driver = DockerRuntime(
        DockerSettings(instance="ours", base_url=engine.url, secrets_dir=engine.secrets_dir)
    )
    yield driver
    await driver.close()


@pytest.fixture
async def tricky(runtime, engine):
    with engine.client() as client:
        client.images.build(fileobj=io.BytesIO(TRICKS.encode()), tag=NAME, rm=True)
        client.volumes.prune()  # what building it made
    launch = launch_of((await runtime.images.resolve(NAME)).digest)
    container = await runtime.launch(launch)
    await until_line(runtime, container, "listening")
    return launch, container


async def test_its_user_is_not_the_containers(tricky):
    _, container = tricky
    limits = await ask(container, "/limits")
    assert set(limits["Uid"].split()) == set(limits["Gid"].split()) == {"65534"}


async def test_its_variables_take_no_gpus_and_load_no_code(tricky):
    _, container = tricky
    found = await ask(container, "/environment")
    assert found["NVIDIA_VISIBLE_DEVICES"] == found["DOCKER_RESOURCE_GPU"] == "void"
    emptied = ("NVIDIA_MIG_CONFIG_DEVICES", "CUDA_VISIBLE_DEVICES", "LD_PRELOAD", "LD_AUDIT")
    assert {found[name] for name in emptied} == {""}
    assert (found["PORT"], found["HOST"]) == ("8080", "0.0.0.0")


async def test_its_volumes_are_memory_even_where_secrets_would_be(tricky, engine):
    _, container = tricky
    limits = await ask(container, "/limits")
    kinds = {line.split()[1]: line.split()[2] for line in limits["mounts"].splitlines()}
    assert {kinds[place] for place in ("/run/secrets", "/var/lib/data", "/etc")} == {"tmpfs"}
    with engine.client() as client:
        assert client.volumes.list() == []


async def test_its_labels_make_it_nobody_elses(tricky, runtime, engine):
    launch, container = tricky
    assert container.labels == launch.labels
    assert [one.labels for one in await runtime.list()] == [launch.labels]
    theirs = DockerRuntime(
        DockerSettings(instance="theirs", base_url=engine.url, secrets_dir=engine.secrets_dir)
    )
    assert await theirs.list() == []
    await theirs.close()


async def test_its_checks_and_ports_do_nothing(tricky, engine):
    _, container = tricky
    with engine.client() as client:
        raw = client.api.inspect_container(container.id)
    assert "Health" not in raw["State"]
    assert not any((raw["NetworkSettings"]["Ports"] or {}).values())


async def test_its_signal_does_not_keep_it_from_being_stopped(tricky, runtime):
    _, container = tricky
    await runtime.stop(container.id, 1)
    assert await runtime.list() == []
