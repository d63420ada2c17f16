import pytest

from prsmd.store.db import Database, WriterLimits


@pytest.fixture
async def database(tmp_path):
    opened = await Database.open(
        tmp_path / "state", WriterLimits(retry_seconds=0, group_seconds=60.0)
    )
    yield opened
    await opened.close()
