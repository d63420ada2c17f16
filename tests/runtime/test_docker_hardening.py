"""What a container can and cannot do, seen from inside a real one and from the engine."""

import asyncio
import dataclasses
import io
from ipaddress import ip_network

import docker
import pytest

from prsmd.domain.errors import EngineError, EngineUnreachableError
from prsmd.domain.quantity import MIB
from prsmd.domain.replica import Endpoint
from prsmd.domain.spec import Security
from prsmd.runtime.base import ContainerState, LogQuery
from prsmd.runtime.docker import DockerRuntime, DockerSettings
from prsmd.runtime.docker_config import container_name, network_config, network_name, written
from tests.runtime.harness import GPUS, ask, launch_of, until_exited, until_line
from tests.support.engine import MODEL_IMAGE
from tests.support.engine_fixtures import need_firewall

pytestmark = pytest.mark.engine


@pytest.fixture
async def runtime(engine):
    driver = DockerRuntime(
        DockerSettings(
            instance="ours",
            base_url=engine.url,
            timeout_seconds=2,
            pids_limit=64,
            secrets_dir=engine.secrets_dir,
        )
    )
    yield driver
    await driver.close()


@pytest.fixture
async def model(runtime):
    return (await runtime.images.resolve(MODEL_IMAGE)).digest


async def listening(runtime, launch):
    container = await runtime.launch(launch)
    await until_line(runtime, container, "listening")
    return container


def inspect(engine, container_id):
    with engine.client() as client:
        return client.api.inspect_container(container_id)


async def test_a_model_has_no_privileges(runtime, model):
    limits = await ask(await listening(runtime, launch_of(model)), "/limits")
    assert set(limits["CapEff"]) == set(limits["CapBnd"]) == {"0"}
    assert limits["NoNewPrivs"] == "1"
    assert limits["Seccomp"] == "2"
    assert set(limits["Uid"].split()) == set(limits["Gid"].split()) == {"65534"}
    assert limits["init"] == "docker-init"


async def test_a_model_writes_only_to_a_small_tmp(runtime, model):
    limits = await ask(await listening(runtime, launch_of(model)), "/limits")
    assert limits["writable"] == ["/tmp"]
    (tmp,) = [line for line in limits["mounts"].splitlines() if " /tmp " in line]
    assert {"noexec", "nosuid", "nodev", f"size={128 * MIB // 1024}k"} <= set(
        tmp.split()[3].split(",")
    )


async def test_loosenings_that_were_asked_for_are_granted_and_no_more(runtime, model):
    security = Security(run_as_user=0, writable_root=True)
    limits = await ask(await listening(runtime, launch_of(model, security=security)), "/limits")
    assert "/etc" in limits["writable"]
    assert set(limits["CapEff"]) == {"0"}


async def test_the_engine_enforces_what_was_reserved(runtime, engine, model):
    container = await runtime.launch(launch_of(model, gpus=GPUS))
    raw = inspect(engine, container.id)
    host = raw["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 128 * MIB
    assert host["NanoCpus"] == 500_000_000
    assert host["PidsLimit"] == 64
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["LogConfig"]["Config"] == {"max-size": str(5 * MIB), "max-file": "2"}
    assert host["DeviceRequests"][0]["DeviceIDs"] == list(GPUS)
    assert host["DeviceRequests"][0]["Capabilities"] == [["gpu"]]


async def test_nothing_of_the_host_is_shared_and_no_core_is_dumped(runtime, engine, model):
    host = inspect(engine, (await runtime.launch(launch_of(model))).id)["HostConfig"]
    assert host["IpcMode"] == "private"
    assert not any(host[mode] for mode in ("PidMode", "UTSMode", "UsernsMode", "Devices"))
    assert not any(host[field] for field in ("CapAdd", "VolumesFrom", "Links", "ExtraHosts"))
    assert host["ShmSize"] == 64 * MIB
    assert host["Ulimits"] == [{"Name": "core", "Soft": 0, "Hard": 0}]
    assert host["MaskedPaths"]
    assert host["ReadonlyPaths"]


async def test_what_an_image_calls_volumes_is_small_memory_and_no_disk(runtime, engine, model):
    with engine.client() as client:
        client.images.build(
            fileobj=io.BytesIO(f"FROM {MODEL_IMAGE}\nVOLUME /data /model/cache\n".encode()),
            tag="prsmd-test/volumes:1",
            rm=True,
        )
        client.volumes.prune()  # what building it made
    image = await runtime.images.resolve("prsmd-test/volumes:1")
    container = await listening(runtime, launch_of(image.digest))
    lines = (await ask(container, "/limits"))["mounts"].splitlines()
    mounts = {line.split()[1]: line.split() for line in lines}
    for place in ("/data", "/model/cache"):
        assert mounts[place][2] == "tmpfs"
        assert {"noexec", "nosuid", "nodev", f"size={128 * MIB // 1024}k"} <= set(
            mounts[place][3].split(",")
        )
    assert {m["Type"] for m in inspect(engine, container.id)["Mounts"]} == {"tmpfs"}
    with engine.client() as client:
        assert client.volumes.list() == []


async def test_secrets_are_read_only_in_memory_and_gone_with_the_container(runtime, engine, model):
    launch = dataclasses.replace(launch_of(model), secrets={"TOKEN": b"canary-4711"})
    container = await listening(runtime, launch)
    seen = await ask(container, "/read", {"path": "/run/secrets/TOKEN"})
    assert seen == {"text": "canary-4711", "mode": "444"}
    lines = (await ask(container, "/limits"))["mounts"].splitlines()
    (mount,) = [line.split() for line in lines if " /run/secrets " in line]
    assert mount[2] == "tmpfs"
    assert "ro" in mount[3].split(",")
    raw = inspect(engine, container.id)
    assert "canary-4711" not in str(raw)
    assert [m["RW"] for m in raw["Mounts"]] == [False]
    (folder,) = (engine.secrets_dir / "ours").iterdir()
    assert (engine.secrets_dir / "ours").stat().st_mode & 0o777 == 0o700
    await runtime.stop(container.id, 0)
    assert not folder.exists()


async def test_secrets_of_a_container_that_was_removed_by_others_are_swept_up(
    runtime, engine, model
):
    launch = dataclasses.replace(launch_of(model), secrets={"TOKEN": b"x"})
    container = await runtime.launch(launch)
    await runtime.list()
    assert len([*(engine.secrets_dir / "ours").iterdir()]) == 1
    with engine.client() as client:
        client.api.remove_container(container.id, force=True)
    assert await runtime.list() == []
    assert [*(engine.secrets_dir / "ours").iterdir()] == []


async def test_a_launch_that_was_refused_leaves_no_secret(runtime, engine, model):
    launch = dataclasses.replace(launch_of(model, memory_bytes=MIB), secrets={"TOKEN": b"x"})
    with pytest.raises(EngineError, match=r"(?i)minimum memory limit"):
        await runtime.launch(launch)
    assert await runtime.list() == []
    assert [*(engine.secrets_dir / "ours").iterdir()] == []


async def test_secrets_that_would_lie_on_a_disk_are_refused(engine, model, tmp_path):
    runtime = DockerRuntime(
        DockerSettings(instance="ours", base_url=engine.url, secrets_dir=tmp_path / "secrets")
    )
    with pytest.raises(EngineError, match="is on a disk"):
        await runtime.launch(dataclasses.replace(launch_of(model), secrets={"TOKEN": b"x"}))
    assert await runtime.list() == []
    assert not any((tmp_path / "secrets" / "ours").iterdir())
    await runtime.close()


async def test_a_runtime_class_that_the_engine_has_is_used_and_others_are_named(
    runtime, engine, model
):
    launch = launch_of(model, security=Security(runtime_class="runc"))
    assert inspect(engine, (await runtime.launch(launch)).id)["HostConfig"]["Runtime"] == "runc"
    other = launch_of(model, "replica-2", security=Security(runtime_class="kata"))
    with pytest.raises(EngineError, match=r"no runtime class kata; it has .*runc"):
        await runtime.launch(other)


async def test_a_way_out_is_a_network_of_its_own_on_which_neighbours_do_not_meet(
    runtime, engine, model
):
    egress = Security(egress=True)
    first = await listening(runtime, launch_of(model, security=egress))
    second = await listening(runtime, launch_of(model, "replica-2", security=egress))
    with engine.client() as client:
        (network,) = [n.attrs for n in client.networks.list() if n.name.startswith("prsmd-")]
    assert not network["Internal"]
    assert network["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    if engine.has_firewall:
        there = {"host": second.endpoint.host, "port": second.endpoint.port}
        assert (await ask(first, "/connect", there))["error"] is not None


async def test_no_port_is_published_and_no_host_path_mounted(runtime, engine, model):
    raw = inspect(engine, (await runtime.launch(launch_of(model))).id)
    assert not raw["HostConfig"]["PortBindings"]
    assert not raw["HostConfig"]["Binds"]
    assert raw["Mounts"] == []
    assert not raw["HostConfig"]["Privileged"]
    assert list(raw["NetworkSettings"]["Networks"]) == [network_name("prsmd", "company")]


async def test_each_organization_has_an_internal_network_of_its_own(runtime, engine, model):
    launch = launch_of(model)
    labels = dataclasses.replace(launch.labels, organization="Company!", replica="replica-2")
    await runtime.launch(launch)
    await runtime.launch(dataclasses.replace(launch, labels=labels))
    with engine.client() as client:
        networks = [n.attrs for n in client.networks.list() if n.name.startswith("prsmd-")]
    assert len(networks) == 2
    assert all(network["Internal"] for network in networks)


async def test_a_network_that_is_not_internal_is_refused(runtime, engine, model):
    with engine.client() as client:
        client.networks.create(network_name("prsmd", "company"), driver="bridge")
    with pytest.raises(EngineError, match="not internal"):
        await runtime.launch(launch_of(model))
    assert await runtime.list() == []


async def test_a_network_removed_behind_our_back_is_made_again(runtime, engine, model):
    await runtime.stop((await runtime.launch(launch_of(model))).id, 0)
    with engine.client() as client:
        client.networks.prune()
    container = await runtime.launch(launch_of(model))
    assert container.state is ContainerState.RUNNING


def networks(engine):
    """Return the names of prsmd's networks on the engine."""
    with engine.client() as client:
        return sorted(n.name for n in client.networks.list() if n.name.startswith("prsmd-"))


async def test_a_network_goes_with_the_last_of_its_containers(runtime, engine, model):
    way_out = Security(egress=True)
    launches = [
        launch_of(model),
        launch_of(model, "replica-2"),
        launch_of(model, "replica-3", security=way_out),
    ]
    first, second, third = [await runtime.launch(launch) for launch in launches]
    assert len(networks(engine)) == 2
    await runtime.stop(first.id, 0)
    assert len(networks(engine)) == 2
    await runtime.stop(third.id, 0)
    assert networks(engine) == [network_name("prsmd", "company")]
    await runtime.stop(second.id, 0)
    assert networks(engine) == []


async def test_a_network_of_somebody_else_stays(runtime, engine, model):
    launch = launch_of(model)
    config = network_config(launch, DockerSettings(instance="theirs"))
    with engine.client() as client:
        client.networks.create(**config)
    await runtime.stop((await runtime.launch(launch)).id, 0)
    assert networks(engine) == [config["name"]]


async def test_a_container_outlives_the_network_that_it_was_created_for(runtime, engine, model):
    """What a crash left between creating and starting, while the others of it were stopped."""
    launch = launch_of(model)
    config = network_config(launch, DockerSettings(instance="ours"))
    with engine.client() as client:
        made = client.networks.create(**config)
        client.containers.create(
            MODEL_IMAGE, name=container_name("replica-1"), labels=written(launch.labels, 8080),
            network=config["name"], environment={"PORT": "8080"},
        )  # fmt: skip
        made.remove()
    container = await listening(runtime, launch)
    assert (await ask(container, "/health"))["status"] == "ok"


async def test_an_engine_without_addresses_is_told_apart_and_room_is_made(runtime, engine, model):
    with engine.client() as client:
        client.networks.create("prsmd-left", labels={"prsmd.instance": "ours"})
        [left] = client.networks.get("prsmd-left").attrs["IPAM"]["Config"]
        others = ip_network(engine.pool).address_exclude(ip_network(left["Subnet"]))
        for subnet in map(str, others):
            taken = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=subnet)])
            client.networks.create(f"full-{subnet.replace('/', '-')}", ipam=taken, internal=True)
    container = await runtime.launch(launch_of(model))  # in place of the one that was left
    assert "prsmd-left" not in networks(engine)
    other = launch_of(model, "replica-2")
    other = dataclasses.replace(
        other, labels=dataclasses.replace(other.labels, organization="other")
    )
    with pytest.raises(
        EngineError, match=r"no addresses left for the network of other: it has \d+"
    ):
        await runtime.launch(other)
    await runtime.stop(container.id, 0)
    assert (await runtime.launch(other)).state is ContainerState.RUNNING


async def test_eating_too_much_memory_is_told_apart_from_a_crash(runtime, model):
    launch = launch_of(model, memory_bytes=32 * MIB, EAT_MEMORY=str(256 * MIB))
    await runtime.launch(launch)
    ended = await until_exited(runtime)
    assert (ended.out_of_memory, ended.exit_code) == (True, 137)


async def test_a_container_that_ignores_sigterm_is_killed_after_its_grace(runtime, model):
    container = await listening(runtime, launch_of(model, IGNORE_TERM="1", CHILDREN="2"))
    await runtime.stop(container.id, 1)
    assert await runtime.list() == []


async def test_labels_alone_do_not_make_a_container_ours(runtime, engine, model):
    labels = written(launch_of(model).labels, 8080)
    with engine.client() as client:
        stranger = client.containers.run(
            MODEL_IMAGE, labels=labels, name="stranger", network_mode="none", detach=True,
            environment={"PORT": "1234"},
        )  # fmt: skip
        assert await runtime.list() == []
        with pytest.raises(EngineError, match="not of this instance"):
            await runtime.stop(stranger.id, 0)
        stranger.reload()
        assert stranger.status == "running"


async def test_a_container_of_that_name_without_our_labels_is_not_taken_over(
    runtime, engine, model
):
    with engine.client() as client:
        client.containers.create(MODEL_IMAGE, name=container_name("replica-1"), network_mode="none")
    with pytest.raises(EngineError, match="not this replica's"):
        await runtime.launch(launch_of(model))


async def test_a_container_that_was_created_and_not_started_is_started(runtime, engine, model):
    launch = launch_of(model)
    with engine.client() as client:
        client.networks.create(**network_config(launch, DockerSettings(instance="ours")))
        client.containers.create(
            MODEL_IMAGE, name=container_name("replica-1"), labels=written(launch.labels, 8080),
            network=network_name("prsmd", "company"), environment={"PORT": "8080"},
        )  # fmt: skip
    (half_made,) = await runtime.list()
    assert half_made.state is ContainerState.CREATED
    assert (await runtime.launch(launch)).state is ContainerState.RUNNING


async def test_what_the_engine_refuses_comes_back_in_its_words(runtime, model):
    with pytest.raises(EngineError, match=r"(?i)minimum memory limit"):
        await runtime.launch(launch_of(model, memory_bytes=MIB))


async def test_a_command_that_is_not_there_ends_with_its_name_in_the_log(runtime, model):
    launch = dataclasses.replace(launch_of(model), command=("/no/such/program",))
    container = await runtime.launch(launch)
    assert (await until_exited(runtime)).exit_code == 127
    lines = [line.text async for line in runtime.logs(container.id, LogQuery())]
    assert any("/no/such/program" in line for line in lines)


async def test_a_steady_state_costs_one_call_for_each_look(runtime, engine, model):
    await runtime.launch(launch_of(model))
    before = await runtime.list()
    engine.forget_log()
    assert await runtime.list() == before
    calls = [line for line in engine.requests() if "/containers/" in line]
    assert len(calls) == 1
    assert "/containers/json" in calls[0]


async def test_a_hung_engine_costs_bounded_time_and_says_so(runtime, engine):
    await runtime.list()
    engine.pause()
    with pytest.raises(EngineUnreachableError, match=r"(does not answer|cannot reach)"):
        await asyncio.wait_for(runtime.list(), 20)
    engine.resume()
    assert await runtime.list() == []


async def test_streams_end_when_the_engine_goes_and_work_again_afterwards(runtime, engine, model):
    container = await listening(runtime, launch_of(model))
    events = runtime.events()
    await anext(events)
    engine.restart()
    async for _ in events:  # hints that the containers died, then the end
        pass
    (ended,) = await runtime.list()
    assert ended.state is ContainerState.EXITED
    await anext(runtime.events())
    lines = [line.text async for line in runtime.logs(container.id, LogQuery())]
    assert lines == ["listening"]


async def test_no_engine_is_an_error_of_its_own(tmp_path):
    url = f"unix://{tmp_path}/nobody.sock"
    runtime = DockerRuntime(DockerSettings(instance="ours", base_url=url))
    for verb in (runtime.list, lambda: anext(runtime.events())):
        with pytest.raises(EngineUnreachableError, match="cannot reach the engine"):
            await verb()
    await runtime.close()


async def test_a_container_cannot_leave_its_network(runtime, engine, model):
    need_firewall(engine)
    container = await listening(runtime, launch_of(model))
    theirs = launch_of(model, "replica-2")
    theirs = dataclasses.replace(
        theirs, labels=dataclasses.replace(theirs.labels, organization="other")
    )
    other = await listening(runtime, theirs)
    addresses = [other.endpoint, Endpoint("192.0.2.1", 53)]  # another organization's; the world's
    for address in addresses:
        asked = {"host": address.host, "port": address.port}
        assert (await ask(container, "/connect", asked))["error"] is not None
    itself = {"host": container.endpoint.host, "port": container.endpoint.port}
    assert (await ask(container, "/connect", itself))["error"] is None
    assert (await ask(container, "/resolve", {"name": "example.org"}))["error"] is not None
