"""Uploads and the nouns of images, on both transports."""

import asyncio
import io
from pathlib import Path

import pytest

from prsm_sdk import PRSMClient, errors, image_calls
from prsm_sdk.sync import SyncClient
from prsm_sdk.target import Target
from prsm_sdk.upload import Upload
from tests.sdk.wire_server import WireServer, answers, cuts, refuses

IMAGES = "/v1/images"
LOADED = {"archive_digest": "sha256:1", "images": [{"digest": "sha256:2", "reference": "a:1"}]}


def load_async(server, source):
    async def load():
        async with PRSMClient(base_url=server.unix_url, timeout=20) as client:
            return await client.images.load(source)

    return asyncio.run(load())


def load_sync(server, source):
    target = Target.resolve(server.unix_url)
    source = Path(source) if isinstance(source, str) else source
    return SyncClient(target, 20).send(image_calls.load_images(Upload(source)))


@pytest.fixture(params=[load_async, load_sync])
def load(request, server: WireServer):
    return lambda source: request.param(server, source)


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "archive.tar"
    path.write_bytes(b"x" * (3 << 20))
    return path


def test_a_file_is_sent_with_its_length(server, load, archive):
    server.on("POST", IMAGES, answers(LOADED))
    result = load(str(archive))
    assert [image.reference for image in result.images] == ["a:1"]
    assert server.seen[0].headers["Content-Length"] == str(3 << 20)
    assert len(server.seen[0].body) == 3 << 20


def test_an_open_file_is_sent_as_it_comes(server, load):
    server.on("POST", IMAGES, answers(LOADED))
    load(io.BytesIO(b"stream"))
    assert server.seen[0].body == "stream"
    assert server.seen[0].headers["Transfer-Encoding"] == "chunked"


def test_a_file_is_sent_again_after_a_cut_with_the_same_key(server, load, archive):
    server.on("POST", IMAGES, cuts, answers(LOADED))
    load(archive)
    first, second = server.seen
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert first.body == second.body


def test_a_stream_is_not_sent_again_after_a_cut(server, load):
    server.on("POST", IMAGES, cuts, answers(LOADED))
    with pytest.raises(errors.ConnectionCutError):
        load(io.BytesIO(b"stream"))
    assert len(server.seen) == 1


def test_a_refusal_is_told(server, load, archive):
    server.on("POST", IMAGES, refuses(507, "STORAGE_FULL", "no room"))
    with pytest.raises(errors.PRSMError, match="no room"):
        load(archive)


def test_a_file_that_cannot_be_read_is_told_before_anything_is_sent(server, load, tmp_path):
    with pytest.raises(errors.ConfigurationError, match="cannot be read"):
        load(tmp_path / "none.tar")
    assert server.seen == []


async def test_the_nouns_ask_for_what_they_say(server):
    image = {"id": "sha256:1", "references": ["a:1"], "kept_for": None, "would_be_pruned": True}
    login = {"server": "r.example", "username": "robot"}
    server.on("GET", IMAGES, answers({"images": [image], "total": 1}))
    server.on("POST", f"{IMAGES}/prune", answers({"dry_run": True, "removed": [image]}))
    server.on("GET", "/v1/registries", answers({"registries": [login], "total": 1}))
    server.on("POST", "/v1/registries", answers(login))
    server.on("DELETE", "/v1/registries/r.example", answers(login))

    async with PRSMClient(base_url=server.unix_url) as client:
        [found] = await client.images.list()
        pruned = await client.images.prune(2, dry_run=True)
        [kept] = await client.registries.list()
        added = await client.registries.add("r.example", "robot", "s3cret")
        await client.registries.remove("r.example")

    assert (found.references, found.would_be_pruned) == (("a:1",), True)
    assert pruned.dry_run
    assert pruned.removed[0].id == "sha256:1"
    assert kept == added
    bodies = [seen.body for seen in server.seen if seen.method == "POST"]
    assert bodies == [
        {"dry_run": True, "keep_revisions": 2},
        {"server": "r.example", "username": "robot", "password": "s3cret"},
    ]
