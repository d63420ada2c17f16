"""The `engine` fixture: one private Docker engine for the whole session, with the test images."""

import os
from collections.abc import Iterator

import docker
import pytest

from tests.support.engine import PrivateEngine, obstacle
from tests.support.places import beside_the_firewall


def cannot(message: str) -> None:
    """Skip the test, or fail it under CI=true, where nothing may be left out."""
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[PrivateEngine]:
    """Give the session's engine; `engine` is the same one, cleared after each test."""
    reason = obstacle()
    if reason is not None:
        cannot(f"no Docker engine for tests: {reason}")
    private = PrivateEngine(firewall=not beside_the_firewall())
    try:
        try:
            private.start()
            private.build_images()
        except (RuntimeError, OSError, docker.errors.DockerException) as error:
            cannot(f"no Docker engine for tests: {error}")
        yield private
    finally:
        private.close()


def need_firewall(engine: PrivateEngine) -> None:
    """Go on only with an engine that writes firewall rules."""
    if not engine.has_firewall:
        cannot("another dockerd runs here: this engine writes no firewall rules")


@pytest.fixture
def engine(shared_engine: PrivateEngine) -> Iterator[PrivateEngine]:
    """Give an engine that answers and has no containers."""
    yield shared_engine
    shared_engine.resume()
    shared_engine.remove_containers()
