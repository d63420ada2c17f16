import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from prsmd.cli.main import main
from tests.sdk.wire_server import WireServer


@pytest.fixture
def server() -> Iterator[WireServer]:
    with tempfile.TemporaryDirectory() as folder, WireServer(Path(folder)) as running:
        yield running


@pytest.fixture
def ctl(server: WireServer, monkeypatch, capsys):
    """Give prsmctl as a function of its arguments: exit code, stdout and stderr."""
    monkeypatch.setenv("PRSMD_URL", server.unix_url)
    monkeypatch.delenv("PRSMD_API_KEY", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
