"""What is written for an engine and read from it, without one."""

import dataclasses
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.domain.errors import (
    ImageUnavailableError,
    NoRoomForImageError,
    PullBrokenOffError,
)
from prsmd.domain.quantity import MIB
from prsmd.domain.spec import Security
from prsmd.runtime.base import Labels
from prsmd.runtime.docker_config import (
    DockerSettings,
    Surroundings,
    container_config,
    network_config,
    network_name,
    read,
    written,
)
from prsmd.runtime.docker_reading import (
    LogFrames,
    PullMessages,
    image,
    pull_failure,
    pull_refusal,
    timestamp,
)
from prsmd.runtime.references import is_reference, split_reference
from tests.runtime.harness import GPUS, launch_of

SETTINGS = DockerSettings(instance="ours")
AT = "2026-01-02T03:04:05.678901234Z"
ID = "sha256:" + "a" * 64
PINNED = "sha256:" + "b" * 64


def frame(text, stream=1):
    payload = f"{AT} {text}".encode()
    return struct.pack(">BxxxL", stream, len(payload)) + payload


def test_labels_come_back_as_they_were_written():
    labels = launch_of(ID).labels
    assert read(written(labels, 8080)) == labels


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Labels)])
def test_a_container_lacking_any_label_is_not_ours(field):
    texts = written(launch_of(ID).labels, 8080)
    del texts[f"prsmd.{field.replace('_', '-')}"]
    assert read(texts) is None


@given(st.text(), st.text())
def test_two_organizations_never_share_a_network(one, other):
    names = network_name("prsmd", one), network_name("prsmd", other)
    assert (names[0] == names[1]) == (one == other)
    assert all(name.replace("-", "").isalnum() and len(name) <= 63 for name in names)


def test_command_and_arguments_replace_those_of_the_image_only_where_given():
    launch = launch_of(ID)
    plain = container_config(launch, SETTINGS)
    assert "Entrypoint" not in plain
    assert "Cmd" not in plain
    args = container_config(dataclasses.replace(launch, args=("x",)), SETTINGS)
    assert ("Entrypoint" in args, args["Cmd"]) == (False, ["x"])
    command = container_config(dataclasses.replace(launch, command=("run",)), SETTINGS)
    assert (command["Entrypoint"], command["Cmd"]) == (["run"], [])


def test_secrets_are_bound_read_only_and_no_value_is_told_to_the_engine():
    launch = dataclasses.replace(launch_of(ID), secrets={"TOKEN": b"canary"})
    config = container_config(launch, SETTINGS, Surroundings(secrets=Path("/run/x/y")))
    (mount,) = config["HostConfig"]["Mounts"]
    assert mount["ReadOnly"]
    assert (mount["Type"], mount["Source"], mount["Target"]) == ("bind", "/run/x/y", "/run/secrets")
    assert "TOKEN_FILE=/run/secrets/TOKEN" in config["Env"]
    assert "canary" not in str(config)


def test_what_an_image_would_keep_on_disk_is_kept_in_bounded_memory():
    around = Surroundings(volumes=("/data", "/data/", "/tmp/", "/run/secrets"))
    mounts = container_config(launch_of(ID), SETTINGS, around)["HostConfig"]["Mounts"]
    targets = [(m["Type"], m["Target"]) for m in mounts]
    assert targets == [("tmpfs", "/data"), ("tmpfs", "/run/secrets")]
    assert mounts[0]["TmpfsOptions"]["SizeBytes"] == 128 * MIB


def test_an_image_does_not_keep_the_place_of_secrets_for_itself():
    around = Surroundings(secrets=Path("/run/x/y"), volumes=("/run/secrets/",))
    mounts = container_config(launch_of(ID), SETTINGS, around)["HostConfig"]["Mounts"]
    assert [(m["Type"], m["Target"]) for m in mounts] == [("bind", "/run/secrets")]


def test_what_an_image_sets_for_the_nvidia_toolkit_is_set_anew():
    variables = (
        *("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "PATH", "NVIDIA_DRIVER_CAPABILITIES"),
        *("NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_IMEX_CHANNELS", "NVIDIA_VISIBLE_DEVICES"),
        *("CUDA_VISIBLE_DEVICES", "DOCKER_RESOURCE_GPU"),
    )
    around = Surroundings(variables=variables)
    for gpus, listed in ((), "void"), (("GPU-1", "GPU-2"), "GPU-1,GPU-2"):
        config = container_config(launch_of(ID, gpus=gpus), SETTINGS, around)
        found = dict(text.split("=", 1) for text in config["Env"])
        assert {name: found.get(name) for name in variables} == {
            "LD_PRELOAD": "",
            "LD_AUDIT": "",
            "LD_LIBRARY_PATH": None,
            "PATH": None,
            "NVIDIA_DRIVER_CAPABILITIES": None,
            "NVIDIA_MIG_CONFIG_DEVICES": "",
            "NVIDIA_IMEX_CHANNELS": "",
            "NVIDIA_VISIBLE_DEVICES": listed,
            "CUDA_VISIBLE_DEVICES": ",".join(gpus),
            "DOCKER_RESOURCE_GPU": listed,
        }


def test_a_way_out_is_a_network_of_its_own_with_name_service():
    inside = launch_of(ID)
    outside = dataclasses.replace(inside, security=Security(egress=True))
    configs = [network_config(launch, SETTINGS) for launch in (inside, outside)]
    assert [config["internal"] for config in configs] == [True, False]
    assert configs[0]["name"] != configs[1]["name"]
    bridges = [config["options"]["com.docker.network.bridge.name"] for config in configs]
    assert [bridge[:6] for bridge in bridges] == ["prsmi-", "prsmx-"]
    assert all(len(bridge) <= 15 for bridge in bridges)  # what a Linux interface may be called
    elsewhere = dataclasses.replace(SETTINGS, base_url="unix:///run/other.sock")
    other = network_config(inside, elsewhere)["options"]["com.docker.network.bridge.name"]
    assert other not in bridges  # two engines of one host have no interface in common
    hosts = [container_config(launch, SETTINGS)["HostConfig"] for launch in (inside, outside)]
    assert ["Dns" in host for host in hosts] == [True, False]


def test_a_runtime_class_is_the_deployments_else_the_appliances_else_the_engines():
    asked = dataclasses.replace(launch_of(ID), security=Security(runtime_class="kata"))
    default = dataclasses.replace(SETTINGS, default_class="runsc")
    found = [
        container_config(launch, settings)["HostConfig"].get("Runtime")
        for launch, settings in [
            (asked, default),
            (launch_of(ID), default),
            (launch_of(ID), SETTINGS),
        ]
    ]
    assert found == ["kata", "runsc", None]


def test_devices_are_requested_by_uuid_and_only_where_reserved():
    assert container_config(launch_of(ID), SETTINGS)["HostConfig"]["DeviceRequests"] == []
    requests = container_config(launch_of(ID, gpus=GPUS), SETTINGS)["HostConfig"]["DeviceRequests"]
    assert requests == [{"DeviceIDs": list(GPUS), "Capabilities": [["gpu"]]}]


@given(st.lists(st.integers(1, 40)), st.lists(st.text("ab é"), max_size=5))
def test_log_lines_are_the_same_however_the_bytes_are_cut(cuts, texts):
    data = b"".join(frame(f"{text}\n", 1 + index % 2) for index, text in enumerate(texts))
    frames, lines, start = LogFrames(), [], 0
    for size in [*cuts, len(data)]:
        lines.extend(frames.feed(data[start : start + size]))
        start += size
    assert [(line.stream, line.text) for line in lines] == [
        (("stdout", "stderr")[index % 2], text) for index, text in enumerate(texts)
    ]
    assert not list(frames.rest())


def test_a_line_in_several_frames_is_one_line():
    frames = LogFrames()
    data = frame("one ") + frame("other\n", stream=2) + frame("line\n")
    assert [line.text for line in frames.feed(data)] == ["other", "one line"]


def test_a_line_that_never_ended_is_still_given():
    frames = LogFrames()
    assert list(frames.feed(frame("cut"))) == []
    assert [line.text for line in frames.rest()] == ["cut"]


def test_times_keep_their_decimals():
    assert timestamp("1970-01-01T00:00:10.5Z") == 10.5
    assert timestamp("1970-01-01T01:00:00+01:00") == 0.0
    with pytest.raises(ValueError, match="not a time"):
        timestamp("soon")


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("python", ("python", "latest")),
        ("company/analyzer:v2.1", ("company/analyzer", "v2.1")),
        ("registry:5000/a/b", ("registry:5000/a/b", "latest")),
        ("registry:5000/a/b:1", ("registry:5000/a/b", "1")),
        (f"a/b:1@{PINNED}", ("a/b", PINNED)),
    ],
)
def test_references_are_split_as_docker_does(reference, parts):
    assert is_reference(reference)
    assert split_reference(reference) == parts


@pytest.mark.parametrize(
    "text", ["", "../a", "a//b", "a b", "A/b:", "a:..", "a?x=1", "a#b", "/a", "a/", "a@sha256:1"]
)
def test_what_is_no_reference_never_reaches_the_engine(text):
    assert not is_reference(text)


def test_an_image_is_pinned_by_the_digest_of_the_repository_asked_for():
    raw = {"Id": ID, "Size": 7, "RepoDigests": [f"other@{ID}", f"python@{PINNED}"]}
    assert image(raw, "docker.io/library/python:3.11").digest == f"python@{PINNED}"
    assert image(raw, "elsewhere/python:3.11").digest == ID
    assert image({"Id": ID, "Size": 7, "RepoDigests": None}, "x").digest == ID


def test_an_image_tells_its_variables():
    raw = {"Id": ID, "Size": 7, "Config": {"Env": ["A=b=c", "broken"]}}
    assert image(raw, "x").environment == {"A": "b=c"}


def pull(*messages):
    return "".join(json.dumps(message) + "\r\n" for message in messages).encode()


def downloading(layer, current, total):
    detail = {"current": current, "total": total}
    return {"status": "Downloading", "id": layer, "progressDetail": detail}


def test_a_pull_adds_up_its_layers_and_never_goes_back():
    messages = PullMessages()
    steps = messages.feed(
        pull(
            {"status": "Pulling from a/b", "id": "1"},
            downloading("x", 10, 100),
            downloading("y", 5, 50),
            {"status": "Download complete", "id": "x"},
            {"status": "Extracting", "id": "x", "progressDetail": {"current": 1, "total": 100}},
            {"status": "Pull complete", "id": "y"},
        )
    )
    seen = [(step.done_bytes, step.total_bytes) for step in steps]
    assert seen == [(0, None), (10, 100), (15, 150), (105, 150), (105, 150), (150, 150)]


def test_a_layer_that_is_taken_up_again_counts_what_it_had():
    messages = PullMessages()
    steps = messages.feed(
        pull(
            downloading("x", 60, 100),
            downloading("x", 100, 100),  # what the engine says when it was cut off
            {"status": "Retrying in 5 seconds", "id": "x"},
            downloading("x", 10, 40),
            downloading("x", 40, 40),
        )
    )
    seen = [(step.done_bytes, step.total_bytes) for step in steps]
    assert seen == [(60, 100), (100, 100), (100, 100), (70, 100), (100, 100)]


def test_a_message_cut_in_two_is_read_once():
    messages, data = PullMessages(), pull(downloading("x", 1, 2))
    assert list(messages.feed(data[:9])) == []
    assert len(list(messages.feed(data[9:]))) == 1


def test_a_pull_keeps_the_engines_reason():
    messages = PullMessages()
    list(messages.feed(pull({"error": "denied", "errorDetail": {"message": "denied"}})))
    assert messages.error == "denied"


REFUSED = "Head http://127.0.0.1:5000/v2/x/manifests/1: no basic auth credentials"


@pytest.mark.parametrize(
    ("repository", "advice"),
    [
        ("127.0.0.1:5000/x", "`docker login 127.0.0.1:5000`"),
        ("registry.example.com/team/x", "`docker login registry.example.com`"),
        ("localhost/x", "`docker login localhost`"),
        ("team/x", "`docker login`"),
        ("x", "`docker login`"),
    ],
)
def test_a_refused_pull_names_the_registry_to_log_in_to(repository, advice):
    words = pull_refusal(REFUSED, repository)
    assert words.startswith(REFUSED)
    assert advice in words


def test_other_reasons_of_a_failed_pull_are_left_as_they_are():
    assert pull_refusal("manifest unknown", "x") == "manifest unknown"


def test_one_content_with_two_digests_in_a_repository_keeps_the_one_it_is_asked_by():
    one, two = f"here/x@{PINNED}", f"here/x@{ID}"
    raw = {"Id": ID, "Size": 1, "RepoDigests": [one, two]}
    assert image(raw, one).digest == image(raw, f"here/x:3@{PINNED}").digest == one
    assert image(raw, two).digest == two


@pytest.mark.parametrize(
    "words",
    [
        "unexpected EOF",
        'Get "https://r/v2/": EOF',
        "read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer",
        "dial tcp 127.0.0.1:1: connect: connection refused",
        "net/http: TLS handshake timeout",
        "dial tcp: lookup r on 127.0.0.53:53: read udp: i/o timeout",
        "received unexpected HTTP status: 503 Service Unavailable",
        "received unexpected HTTP status: 500 Internal Server Error",
        "toomanyrequests: You have reached your pull rate limit",
        "nothing was heard for 300 s",
        "net/http: request canceled while waiting for connection (Client.Timeout exceeded)",
        "context canceled",
    ],
)
def test_a_pull_that_can_succeed_later_is_told_from_one_that_cannot(words):
    error = pull_failure("pull r/a:1", words, "r/a", asked_with=False)
    assert isinstance(error, PullBrokenOffError)
    assert error.retryable
    assert error.message == f"pull r/a:1: {words}"


@pytest.mark.parametrize(
    "words",
    [
        "manifest unknown: manifest unknown",
        "manifest for r/a:1 not found: manifest unknown: manifest unknown",
        "pull access denied for a, repository does not exist or may require 'docker login'",
        "unauthorized: authentication required",
        'Head "http://r/v2/a/manifests/1": no basic auth credentials',
        "no matching manifest for linux/amd64 in the manifest list entries",
        "dial tcp: lookup nowhere.example: no such host",
        "x509: certificate signed by unknown authority",
        "invalid reference format",
    ],
)
@pytest.mark.parametrize("asked_with", [True, False])
def test_a_pull_that_stays_refused_is_not_tried_again(words, asked_with):
    error = pull_failure("pull r/a:1", words, "r/a", asked_with=asked_with)
    assert type(error) is ImageUnavailableError
    assert words in error.message


def test_a_pull_that_filled_the_disk_says_that_there_is_no_room():
    words = "failed to register layer: write /x: no space left on device"
    assert isinstance(pull_failure("pull a", words, "a", asked_with=False), NoRoomForImageError)
