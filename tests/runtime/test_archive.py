"""What an archive of images may hold, and that everything else is refused and named."""

import dataclasses
import gzip
import io
import json
import tarfile

import pytest

from prsmd.domain.errors import InvalidInputError
from prsmd.runtime import archive
from tests.support import archives
from tests.support.archives import digest, laid_out, saved, some_layer, tar

MOST = 1 << 20


def verify(tmp_path, content, name=None, most=MOST):
    """Verify an archive given as files or as the bytes of a tar file."""
    path = tmp_path / "archive.tar"
    path.write_bytes(content if isinstance(content, bytes) else tar(content))
    return archive.verify(path, most, name)


def refusal(tmp_path, content, **more):
    with pytest.raises(InvalidInputError) as refused:
        verify(tmp_path, content, **more)
    return refused.value.message


def given_to_the_engine(verified):
    """Return the files of the tar file that an engine gets."""
    content = b"".join(verified.tar())
    assert len(content) == verified.tar_bytes()
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        return {member.name: opened.extractfile(member).read() for member in opened.getmembers()}


@pytest.mark.parametrize("files", [saved(), laid_out(), laid_out(compressed=False)])
def test_both_forms_are_given_to_the_engine_as_docker_save_writes_them(tmp_path, files):
    verified = verify(tmp_path, files)
    got = given_to_the_engine(verified)

    [entry] = json.loads(got.pop("manifest.json"))
    assert f"sha256:{digest(got[entry['Config']])}" == archives.image_id(files)
    [layer] = entry["Layers"]
    assert {entry["Config"], layer} == set(got)
    assert got[layer] in files.values()
    assert entry["RepoTags"][0] in {"tests/saved:1", "tests/laid-out:1"}
    assert verified.unpacked_bytes > 1000


def test_nothing_but_what_belongs_to_an_image_reaches_the_engine(tmp_path):
    files = saved() | {"repositories": b"{}", "extra/secret": b"x", "VERSION": b"1.0"}
    got = given_to_the_engine(verify(tmp_path, files))
    assert len(got) == 3


def test_a_layer_that_two_images_share_is_one_link_in_what_docker_save_writes(tmp_path):
    shared = some_layer()
    files = saved(layers=[shared])
    manifest = json.loads(files["manifest.json"])
    link = tarfile.TarInfo(f"{'b' * 64}/layer.tar")
    link.type, link.linkname = tarfile.SYMTYPE, f"../{manifest[0]['Layers'][0]}"
    manifest.append({**manifest[0], "RepoTags": ["tests/other:1"], "Layers": [link.name]})
    files["manifest.json"] = json.dumps(manifest).encode()

    first, second = verify(tmp_path, tar(files, link)).images

    assert first.layers == second.layers
    assert second.references == ("tests/other:1",)


def test_of_an_index_for_several_machines_this_machines_image_is_taken(tmp_path):
    ours = laid_out(platform={"os": "linux", "architecture": archive._architecture()})
    theirs = laid_out(platform={"os": "linux", "architecture": "s390x"})
    manifests = [json.loads(files["index.json"])["manifests"][0] for files in (theirs, ours)]
    inner = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    [kind] = [kind for kind in archive._INDEXES if "oci" in kind]
    entry = archives.descriptor(inner, kind)
    entry["annotations"] = {
        "io.containerd.image.name": "docker.io/library/legal:2",
        "org.opencontainers.image.ref.name": "2",
    }
    outer = json.dumps({"manifests": [entry]}).encode()

    verified = verify(tmp_path, theirs | ours | archives.blobs(inner) | {"index.json": outer})

    [image] = verified.images
    assert image.id == archives.image_id(ours)


def test_an_archive_only_for_other_machines_is_refused(tmp_path):
    files = laid_out(platform={"os": "linux", "architecture": "s390x"})
    assert "no image for linux/" in refusal(tmp_path, files)


@pytest.mark.parametrize(
    ("written", "known_as"),
    [("docker.io/library/a:1", "a:1"), ("docker.io/b/a", "b/a:latest"), ("host:5000/a:2",) * 2],
)
def test_names_are_as_people_write_them(tmp_path, written, known_as):
    [image] = verify(tmp_path, laid_out(written)).images
    assert image.references == (known_as,)


@pytest.mark.parametrize("name", [None, "v2"])
def test_an_image_without_a_full_name_has_none_until_it_is_given_one(tmp_path, name):
    [image] = verify(tmp_path, laid_out(name)).images
    assert image.references == ()
    [image] = verify(tmp_path, laid_out(name), name="company/legal:2").images
    assert image.references == ("company/legal:2",)


def test_one_name_cannot_be_given_to_two_images(tmp_path):
    one, two = saved("a:1"), saved("b:1")
    both = [json.loads(files["manifest.json"])[0] for files in (one, two)]
    files = one | two | {"manifest.json": json.dumps(both).encode()}
    assert len(verify(tmp_path, files).images) == 2
    assert "the archive has 2" in refusal(tmp_path, files, name="c:1")


def test_compressed_layers_of_several_parts_are_read_whole(tmp_path):
    content = some_layer(3 << 20)
    middle = len(content) // 2
    parts = gzip.compress(content[:middle]) + gzip.compress(content[middle:])
    files = laid_out(layers=[content])
    [packed] = [name for name, blob in files.items() if blob.startswith(b"\x1f\x8b")]
    manifest = next(name for name, blob in files.items() if b'"schemaVersion": 2, "media' in blob)
    changed = json.loads(files[manifest])
    changed["layers"] = [archives.descriptor(parts, "x")]
    entry = archives.descriptor(json.dumps(changed).encode(), "y")
    del files[packed], files[manifest]
    files |= archives.blobs(parts, json.dumps(changed).encode())
    files["index.json"] = json.dumps({"manifests": [entry]}).encode()

    assert verify(tmp_path, files, most=8 << 20).unpacked_bytes == len(content)


def test_long_names_are_read_as_each_tool_writes_them(tmp_path):
    files = saved() | {"a" * 150 + "/" + "b" * 150: b"x"}
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as opened:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                opened.addfile(entry, io.BytesIO(content))
        assert len(verify(tmp_path, buffer.getvalue()).images) == 1


# What is refused


def member(name, kind=tarfile.REGTYPE, link=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (member("/etc/passwd"), "lead out"),
        (member("../../etc/passwd"), "lead out"),
        (member("a/../../b"), "lead out"),
        (member("a", tarfile.LNKTYPE, "manifest.json"), "a hard link"),
        (member("a", tarfile.CHRTYPE), "a device"),
        (member("a", tarfile.BLKTYPE), "a device"),
        (member("a", tarfile.FIFOTYPE), "a pipe"),
        (member("manifest.json"), "twice"),
        (member("./manifest.json"), "twice"),
        (member("a\nb"), "name cannot be one"),
    ],
)
def test_members_that_no_image_needs_are_refused(tmp_path, entry, words):
    assert words in refusal(tmp_path, tar(saved(), entry))


@pytest.mark.parametrize("target", ["/etc/shadow", "../../x", "../a/../../x", "manifest.json"])
def test_a_layer_that_is_a_link_elsewhere_is_refused(tmp_path, target):
    files = saved()
    entry = json.loads(files["manifest.json"])[0]
    content = files.pop(entry["Layers"][0])
    link = member(entry["Layers"][0], tarfile.SYMTYPE, target)
    words = refusal(tmp_path, tar(files | {"a/layer.tar": content}, link))
    assert "a link that leads where none may" in words or "lacks the file" in words


def test_a_blob_that_is_not_what_its_name_says_is_refused_though_nothing_refers_to_it(tmp_path):
    files = laid_out() | {f"blobs/sha256/{'0' * 64}": b"other"}
    assert "not what its name says" in refusal(tmp_path, files)


def changed(files, find, new):
    [name] = [name for name, content in files.items() if find(name, content)]
    return files | {name: new(files[name])}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            changed(laid_out(), lambda _, c: c[:2] == b"\x1f\x8b", lambda c: gzip.compress(b"?")),
            "in another size",
        ),
        (
            changed(saved(), lambda n, _: n.endswith("layer.tar"), lambda c: c[:-1] + b"?"),
            "not the one its image names",
        ),
        (
            changed(saved(), lambda n, _: len(n) == 69, lambda c: c.replace(b"A=b", b"A=c")),
            "not what its name says",
        ),
        (
            changed(saved(), lambda n, _: n.endswith("layer.tar"), lambda c: b"\x28\xb5\x2f\xfd"),
            "compressed with zstd",
        ),
    ],
)
def test_content_that_lies_is_refused(tmp_path, files, words):
    assert words in refusal(tmp_path, files)


def test_what_is_referred_to_and_not_there_is_named(tmp_path):
    for files in (saved(), laid_out()):
        left_out = [name for name in files if name not in {"manifest.json", "oci-layout"}]
        for name in left_out:
            rest = {other: content for other, content in files.items() if other != name}
            words = refusal(tmp_path, rest)
            assert "lacks the" in words or "holds no image" in words


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", b"[{"),
        ("manifest.json", b"[" * 100_000),
        ("manifest.json", b"{}"),
        ("manifest.json", b"[1]"),
        ("manifest.json", b"[{}]"),
        ("manifest.json", b'[{"Config": 1, "Layers": []}]'),
        ("manifest.json", b'[{"Config": "x", "Layers": {}}]'),
        ("manifest.json", b"[]"),
        ("manifest.json", b" " * (5 << 20)),
        ("index.json", b"{}"),
        ("index.json", b"[]"),
        ("index.json", b'{"manifests": [1]}'),
        ("index.json", b'{"manifests": [{}]}'),
        ("index.json", b'{"manifests": [{"digest": "sha512:00"}]}'),
        ("index.json", b'{"manifests": [{"digest": {}, "annotations": []}]}'),
        ("index.json", b'{"manifests": []}'),
        ("index.json", b"\xff\xfe"),
    ],
)
def test_documents_that_are_not_what_they_should_be_are_refused(tmp_path, name, content):
    assert "archive:" in refusal(tmp_path, {name: content})


def test_an_index_that_holds_itself_ends(tmp_path):
    [kind] = [kind for kind in archive._INDEXES if "oci" in kind]
    inner = b'{"manifests": []}'
    files = {}
    for _ in range(10):
        entry = archives.descriptor(inner, kind)
        files |= archives.blobs(inner)
        inner = json.dumps({"manifests": [entry]}).encode()
    assert "nested too deeply" in refusal(tmp_path, files | {"index.json": inner})


def test_a_small_archive_that_unpacks_to_much_is_refused(tmp_path):
    files = laid_out(layers=[bytes(MOST + 1)])
    assert len(tar(files)) < MOST / 10
    assert f"more than the {MOST} bytes" in refusal(tmp_path, files)


@pytest.mark.parametrize("cut", [0, 1, 100, 512, 1000, 2000, -1024, -1])
def test_an_archive_that_was_cut_off_is_refused(tmp_path, cut):
    whole = tar(saved())
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # where its last file ends
    words = refusal(tmp_path, whole[: cut if cut >= 0 else end + 1 + cut])
    assert "cut off" in words or "not a tar file" in words


def test_a_header_that_promises_more_than_there_is_is_refused(tmp_path):
    entry = tarfile.TarInfo("manifest.json")
    entry.size = 1 << 60
    assert "cut off" in refusal(tmp_path, entry.tobuf(tarfile.GNU_FORMAT) + bytes(4096))


def test_extended_headers_of_any_size_are_not_read_into_memory(tmp_path):
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 100 << 10
    assert "too long" in refusal(tmp_path, entry.tobuf() + bytes(200 << 10))


@pytest.mark.parametrize("record", [b"30 GNU.sparse.major=1\n", b"11 size=-5\n", b"99 a=b\n", b"x"])
def test_extended_headers_that_mean_something_else_are_refused(tmp_path, record):
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, len(record)
    content = entry.tobuf() + record.ljust(512, b"\0") + tar(saved())
    assert "damaged" in refusal(tmp_path, content) or "sparse" in refusal(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a tar file"),
        (b"hello" * 1000, "not a tar file"),
        (gzip.compress(tar(saved())) + bytes(1024), "gunzip it first"),
        (tar({"readme.txt": b"x"}), "holds no image"),
        (tar({f"{number}": b"" for number in range(20_001)}), "more than 20000 files"),
    ],
)
def test_what_is_no_archive_of_images_is_told_so(tmp_path, content, words):
    assert words in refusal(tmp_path, content)


@pytest.mark.parametrize("name", ["../x", "a b", "A:1", "a@sha256:" + "0" * 64, "a:1:2", ""])
def test_names_that_no_image_can_have_are_refused(tmp_path, name):
    assert "cannot be its name" in refusal(tmp_path, saved(name))


def test_a_verified_archive_cannot_be_changed(tmp_path):
    verified = verify(tmp_path, saved())
    with pytest.raises(dataclasses.FrozenInstanceError):
        verified.images = ()
