import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sdk.wire_server import WireServer


@pytest.fixture
def server() -> Iterator[WireServer]:
    with tempfile.TemporaryDirectory() as folder, WireServer(Path(folder)) as running:
        yield running
