"""What the kernel takes of environment and arguments, asked of the kernel itself."""

import errno
import subprocess
import sys

import pytest

from prsmd.core.container_size import (
    MOST_TEXT_BYTES,
    fits,
    launch_refusal,
    oversize,
    parts_of,
)
from prsmd.domain.spec import Resources, SecretUse, Spec

KIB = 1024


def spec(**fields):
    return Spec(
        image="m:1",
        model_type="text",
        resources=Resources(cpu_millis=1, memory_bytes=1),
        **fields,
    )


def starts(environment, *arguments):
    """Tell whether the kernel starts a program so."""
    try:
        subprocess.run([sys.executable, "-c", "", *arguments], env=environment, check=True)
    except OSError as error:
        return error.errno != errno.E2BIG
    return True


@pytest.mark.parametrize("beyond", [0, 1])
def test_one_variable_is_as_long_as_the_kernel_takes_and_no_longer(beyond):
    value = "x" * (MOST_TEXT_BYTES - len("A=") - 1 + beyond)
    assert starts({"A": value}) is fits(f"A={value}") is not beyond
    assert starts({"A": value}) is (launch_refusal([f"A={value}"], []) is None)


@pytest.mark.parametrize("beyond", [0, 1])
def test_one_argument_is_as_long_as_the_kernel_takes_and_no_longer(beyond):
    text = "é" * ((MOST_TEXT_BYTES - 1) // 2) + "x" * (1 + beyond)
    assert starts({}, text) is fits(text) is not beyond


def test_what_is_let_through_of_many_variables_the_kernel_takes():
    environment = {f"V{n}": "x" * 65_536 for n in range(40)}
    while launch_refusal([f"{n}={v}" for n, v in environment.items()], []) is not None:
        environment.popitem()
    assert len(environment) > 20
    assert starts(environment)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"environment": {"A": "x" * 40 * KIB, "B": "x" * 40 * KIB}}, "environment"),
        ({"args": ("x" * 4 * KIB,) * 20}, "args"),
        ({"command": ("é" * 4 * KIB,) * 10}, "command"),
        ({"environment": {f"A{n}": "" for n in range(10_000)}}, "environment"),
    ],
)
def test_what_is_too_much_together_names_the_field_that_has_most_and_the_limit(fields, named):
    found = oversize(spec(**fields), {}, 64 * KIB)
    assert found is not None
    assert found.field == f"deployment_config.{named}"
    assert "64Ki" in found.reason
    assert oversize(spec(**fields), {}, 512 * KIB) is None


def test_secrets_in_variables_count_by_their_size():
    secrets = {
        "TOKEN": SecretUse(name="token", in_environment=True),
        "FILE": SecretUse(name="file"),
    }
    asked = spec(secrets=secrets)
    assert parts_of(asked, {"TOKEN": 1000})["secrets"] > 1000
    found = oversize(asked, {"TOKEN": 64 * KIB}, 32 * KIB)
    assert found is not None
    assert found.field == "deployment_config.secrets"
    alone = oversize(asked, {"TOKEN": MOST_TEXT_BYTES}, None)
    assert alone is not None
    assert alone.field == "deployment_config.secrets.TOKEN"


def test_without_a_limit_the_kernels_own_holds():
    asked = spec(environment={f"A{n}": "x" * 100 * KIB for n in range(30)})
    assert oversize(asked, {}, None) is not None


def test_what_the_image_sets_counts_at_the_launch():
    texts = [f"I{n}=" + "x" * 100 * KIB for n in range(30)]
    refusal = launch_refusal(texts, ["serve"])
    assert refusal is not None
    assert "with what the image sets" in refusal
