"""Fixtures that give real registries on loopback; where none can run, as for engines."""

from collections.abc import Iterator

import pytest

from tests.support.engine_fixtures import cannot
from tests.support.registry import FaultyNetwork, PrivateRegistry, obstacle, started


def _registry(*, closed: bool) -> Iterator[PrivateRegistry]:
    reason = obstacle()
    if reason is not None:
        cannot(f"no registry for tests: {reason}")
    yield from started(closed=closed)


@pytest.fixture(scope="session")
def registry() -> Iterator[PrivateRegistry]:
    """Give the session's registry, which anyone may read and write."""
    yield from _registry(closed=False)


@pytest.fixture(scope="session")
def closed_registry() -> Iterator[PrivateRegistry]:
    """Give a registry that asks for a name and a password."""
    yield from _registry(closed=True)


@pytest.fixture
def network(registry: PrivateRegistry) -> Iterator[FaultyNetwork]:
    """Give a way to the session's registry that can be made to fail."""
    faulty = FaultyNetwork(registry.port)
    yield faulty
    faulty.close()
