"""An archive is whole, or nothing is installed; and only an archive of a trusted key is. Keys are their owners'."""

import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import Outcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from read_only import not_allowed_to_write
from signed_archives import note_of, pack_next
from size_limit import file_size_limit
from tiny_world import ID, TinyWorld

from geodtr import UserError, open_bundle, open_gallery
from geodtr.runtime.archive import format as archive_format
from geodtr.runtime.archive import install, pack
from geodtr.runtime.archive.install import current, unpack
from geodtr.runtime.archive.keys import new_key
from geodtr.runtime.errors import ArchiveError, EmbeddingSpaceMismatch, GalleryError
from geodtr.runtime.gallery.folder import access
from geodtr.runtime.gallery.folder.opening import LOCK
from geodtr.runtime.gallery.folder.writer import FolderWriter
from geodtr.runtime.sources.tile import Tile

Cli = Callable[..., Outcome]
Refused = Callable[..., str]


def test_only_archives_of_trusted_keys_are_installed(
    archives: Path, device: Path, tmp_path: Path, packed_world: TinyWorld, refused: Refused, cli: Cli
) -> None:
    new_key(tmp_path / "key")
    pack_next(packed_world.bundle, packed_world.gallery, tmp_path, "others")
    assert "not signed by a key" in refused("bundle", "unpack", tmp_path / "others.tar", device)
    assert "--trust KEY.pub" in refused("bundle", "unpack", archives / "first.tar", tmp_path / "new")
    assert cli("bundle", "unpack", tmp_path / "others.tar", device, "--trust", tmp_path / "key.pub").code == 0
    # Both keys are trusted from now on.
    unpack(archives / "first.tar", device, allow_older=True)
    assert "holds no Ed25519 private key" in refused(
        "bundle", "pack", packed_world.bundle, "--key", archives / "key.pub", "--out", tmp_path / "x.tar"
    )
    assert "does not hold Ed25519 public keys" in refused(
        "bundle", "unpack", archives / "first.tar", device, "--trust", archives / "key"
    )
    assert "cannot be read" in refused("bundle", "unpack", archives / "first.tar", device, "--trust", tmp_path / "none")


def test_a_private_key_is_its_owners_and_is_never_overwritten(archives: Path, refused: Refused) -> None:
    assert (archives / "key").stat().st_mode & 0o777 == 0o600
    assert "exists" in refused("bundle", "key", archives / "key")


def test_a_full_disk_leaves_no_half_of_a_key(tmp_path: Path) -> None:
    # 119 bytes are written first, the private key, and 113 then.
    for limit in (0, 115):
        with file_size_limit(limit), pytest.raises(UserError, match=r"larger than a file may be|No space"):
            new_key(tmp_path / "key")
        assert list(tmp_path.iterdir()) == []
    new_key(tmp_path / "key")


def test_a_withdrawn_key_signs_nothing_any_more_and_another_takes_its_place(
    archives: Path, device: Path, tmp_path: Path, packed_world: TinyWorld, refused: Refused, cli: Cli
) -> None:
    (device / "trusted.pem").write_text("# withdrawn on Monday\n")
    assert "trusts no key" in refused("bundle", "unpack", archives / "second.tar", device)
    checked = cli("bundle", "verify", device)
    assert checked.code == 1
    assert "its key was withdrawn" in checked.err
    assert "--trust KEY.pub" in checked.err
    new_key(tmp_path / "key")
    pack_next(packed_world.bundle, packed_world.gallery, tmp_path, "others")
    unpack(tmp_path / "others.tar", device, [tmp_path / "key.pub"])
    assert "not signed by a key" in refused("bundle", "unpack", archives / "second.tar", device)
    assert note_of(device) == "others"


def test_what_is_no_key_in_the_list_of_trusted_ones_is_named_with_the_way_out(
    archives: Path, device: Path, refused: Refused
) -> None:
    trusted = device / "trusted.pem"
    for content in (trusted.read_bytes()[:-20], trusted.read_bytes() + (archives / "key").read_bytes()):
        trusted.write_bytes(content)
        second = ("bundle", "unpack", archives / "second.tar", device, "--trust", archives / "key.pub")
        assert "remove it and name the keys to trust" in refused(*second)
        trusted.unlink()
        unpack(archives / "first.tar", device, [archives / "key.pub"])
    assert note_of(device) == "first"


@pytest.mark.parametrize("withdrawn", [False, True])
def test_a_list_of_keys_that_is_changed_meanwhile_is_kept(
    archives: Path, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, withdrawn: bool
) -> None:
    new_key(tmp_path / "key")
    trusted, other = device / "trusted.pem", (tmp_path / "key.pub").read_bytes()
    changed = other if withdrawn else trusted.read_bytes() + other

    def change(_bundle: Path, _archive: Path) -> None:
        trusted.write_bytes(changed)

    monkeypatch.setattr(install, "_require_it_runs", change)
    if withdrawn:
        with pytest.raises(ArchiveError, match="not signed by a key"):
            unpack(archives / "second.tar", device)
    else:
        unpack(archives / "second.tar", device)
    assert trusted.read_bytes() == changed
    monkeypatch.undo()
    assert current(device) is not None
    unpack(archives / "second.tar", device, [archives / "key.pub"])
    assert note_of(device) == "second"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_archive_with_any_damage_installs_nothing(archives: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = (archives / "first.tar").read_bytes()
    ends = len(whole) - 2 * 512
    place = data.draw(st.integers(0, ends - 1), "place")
    damaged = bytearray(whole)
    if data.draw(st.booleans(), "cut"):
        del damaged[place:]
    else:
        damaged[place] ^= data.draw(st.integers(1, 255), "bits")
    archive, device = tmp_path / "damaged.tar", tmp_path / "new"
    archive.write_bytes(damaged)
    try:
        unpack(archive, device, [archives / "key.pub"])
    except ArchiveError:
        assert current(device) is None
        assert not any((device / "versions").glob("*")) if (device / "versions").exists() else True
    else:  # a header's owner, or bytes after a file up to a whole block, are of no use
        assert note_of(device) == "first"
        shutil.rmtree(device)


def test_what_is_no_archive_is_refused(tmp_path: Path, archives: Path, refused: Refused) -> None:
    other, device = tmp_path / "other.tar", tmp_path / "device"
    with tarfile.open(other, "w") as file:
        file.add(archives / "key.pub", "../../key.pub")
    for path, reason in ((other, "is not an archive"), (tmp_path, "directory"), (tmp_path / "none", "No such file")):
        assert reason in refused("bundle", "unpack", path, device, "--trust", archives / "key.pub")
    other.write_bytes(b"")
    assert "is not an archive" in refused("bundle", "unpack", other, device, "--trust", archives / "key.pub")


def test_a_file_in_place_of_the_folder_is_named(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    for place in ("file", "file/device"):
        message = refused("bundle", "unpack", archives / "second.tar", place, "--trust", archives / "key.pub")
        assert "cannot be written" in message


@pytest.mark.parametrize("path", ["bundle/../../x", "/etc/passwd", "bundle/.hidden", "other/x", "bundle", "bundle//x"])
def test_a_signed_path_outside_the_version_is_refused(path: str) -> None:
    index = archive_format.Index(
        format=1, toolkit="1", created="20260101T000000Z", embedding_id="x", note="", files=(_entry(path),)
    )
    with pytest.raises(ArchiveError, match="cannot be put into an archive"):
        archive_format.encode_index(index)
    with pytest.raises(ArchiveError, match="Update geodtr-export"):
        archive_format.decode_index(msgspec.json.encode(index), "x.tar")


@pytest.mark.parametrize("time", ["../../x", "", "20260101T000000Z/x"])
def test_a_signed_time_that_is_none_names_no_folder(time: str) -> None:
    index = archive_format.Index(
        format=1, toolkit="1", created=time, embedding_id="x", note="", files=(_entry("bundle/x"),)
    )
    with pytest.raises(ArchiveError, match="Update geodtr-export"):
        archive_format.decode_index(msgspec.json.encode(index), "x.tar")


def _entry(path: str) -> archive_format.FileEntry:
    return archive_format.FileEntry(path, 0, "0" * 64)


def test_tar_and_openssl_can_read_it(archives: Path, packed_world: TinyWorld, tmp_path: Path) -> None:
    subprocess.run(["tar", "--extract", "--file", archives / "first.tar"], cwd=tmp_path, check=True)
    assert open_bundle(tmp_path / "bundle").manifest == open_bundle(packed_world.bundle).manifest
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(archives / "key.pub"), "-rawin"]
    command += ["-in", "index.json", "-sigfile", "signature"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Successfully" in done.stdout, done.stderr


def test_a_gallery_that_can_only_be_read_is_packed(archives: Path, packed_world: TinyWorld, cli: Cli) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders cannot be entered by other users
        place = Path(name)
        place.chmod(0o777)
        gallery = shutil.copytree(packed_world.gallery, place / "gallery")
        bundle = shutil.copytree(packed_world.bundle, place / "bundle")
        (place / "key").write_bytes((archives / "key").read_bytes())
        line = ["bundle", "pack", bundle, "--gallery", gallery, "--key", place / "key", "--out"]
        with not_allowed_to_write(gallery):
            done = cli(*line, place / "1.tar")
            assert done.code == 0, done.err
        with FolderWriter(gallery) as writer:
            with not_allowed_to_write(gallery):
                assert "being written by another process" in cli(*line, place / "2.tar").err
            writer.add([Tile("last", "last.png")], np.eye(1, writer.manifest.descriptor_size, dtype=np.float32))
        (gallery / LOCK).unlink()
        with not_allowed_to_write(gallery):
            assert cli(*line, place / "3.tar").code == 0
        assert not (place / "2.tar").exists()
        unpack(place / "3.tar", place / "device", [archives / "key.pub"])
        with open_gallery(place / "device" / "current" / "gallery") as opened:
            assert len(opened) == 10


def test_a_writer_that_nothing_could_keep_away_is_noticed(
    archives: Path, packed_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = shutil.copytree(packed_world.gallery, tmp_path / "gallery")

    def none(*_: object, **__: object) -> None:
        raise FileNotFoundError  # the folder cannot be written, and nobody has written it before

    monkeypatch.setattr(access, "lock", none)
    assert (gallery / LOCK).exists()
    with pytest.raises(GalleryError, match="was written by another process meanwhile"):
        pack.pack(packed_world.bundle, gallery, archives / "key", tmp_path / "x.tar")
    assert not (tmp_path / "x.tar").exists()


def test_changes_in_a_log_are_packed_so_that_using_the_gallery_changes_no_file(
    archives: Path, packed_world: TinyWorld, tmp_path: Path
) -> None:
    gallery = shutil.copytree(packed_world.gallery, tmp_path / "gallery")
    with open_gallery(gallery):  # for this reader the log is kept
        with FolderWriter(gallery) as writer:
            writer.remove(["000.png"])
        assert (gallery / "references.sqlite-wal").stat().st_size
        pack.pack(packed_world.bundle, gallery, archives / "key", tmp_path / "x.tar", note="with a log")
    device = tmp_path / "device"
    unpack(tmp_path / "x.tar", device, [archives / "key.pub"])
    with open_gallery(device / "current" / "gallery") as opened:
        assert len(opened) == 8
    with FolderWriter(device / "current" / "gallery"):
        pass
    assert note_of(device) == "with a log"


def test_what_a_cut_compaction_left_is_not_packed(archives: Path, packed_world: TinyWorld, tmp_path: Path) -> None:
    gallery = shutil.copytree(packed_world.gallery, tmp_path / "gallery")
    (left,) = gallery.glob("descriptors-*.float32")
    shutil.copy(left, gallery / "descriptors-2.float32")
    index = pack.pack(packed_world.bundle, gallery, archives / "key", tmp_path / "x.tar")
    assert [entry.path for entry in index.files if "descriptors" in entry.path] == [f"gallery/{left.name}"]


def test_a_gallery_of_another_model_or_in_use_is_not_packed(
    archives: Path, packed_world: TinyWorld, tmp_path: Path
) -> None:
    with FolderWriter(packed_world.gallery), pytest.raises(GalleryError):
        pack.pack(packed_world.bundle, packed_world.gallery, archives / "key", tmp_path / "x.tar")
    other = _changed(packed_world.bundle, tmp_path / "bundle", ID, ID[::-1])
    with pytest.raises(EmbeddingSpaceMismatch, match="gallery build"):
        pack.pack(other, packed_world.gallery, archives / "key", tmp_path / "x.tar")
    assert not (tmp_path / "x.tar").exists()


def _changed(bundle: Path, copy: Path, old: str, new: str) -> Path:
    """A copy of a bundle with another text in its manifest."""
    shutil.copytree(bundle, copy)
    manifest = copy / "manifest.json"
    content = manifest.read_text()
    assert old in content
    manifest.write_text(content.replace(old, new))
    return copy


def test_a_bundle_that_does_not_run_here_replaces_nothing(
    archives: Path, device: Path, packed_world: TinyWorld, tmp_path: Path, cli: Cli
) -> None:
    bundle = _changed(packed_world.bundle, tmp_path / "bundle", '"provider": "cpu"', '"provider": "cuda"')
    time.sleep(1.01)
    pack.pack(bundle, None, archives / "key", tmp_path / "cuda.tar", note="cuda")
    refused = cli("bundle", "unpack", tmp_path / "cuda.tar", device)
    assert refused.code == 2
    assert "does not run on this machine" in refused.err
    assert note_of(device) == "first"
    assert cli("bundle", "unpack", tmp_path / "cuda.tar", device, "--elsewhere").code == 0
    assert note_of(device) == "cuda"


def test_only_what_the_manifests_name_is_packed(archives: Path, packed_world: TinyWorld, tmp_path: Path) -> None:
    bundle, gallery = (
        shutil.copytree(each, tmp_path / each.name) for each in (packed_world.bundle, packed_world.gallery)
    )
    for folder in (bundle, gallery):
        shutil.copytree(packed_world.gallery, folder / "another")
        (folder / "notes.txt").write_text("not of it")
    index = pack.pack(bundle, gallery, archives / "key", tmp_path / "x.tar")
    names = {Path(entry.path).name for entry in index.files}
    assert {"manifest.json", "ground.onnx", "aerial.onnx", "gallery.json", "references.sqlite"} <= names
    assert not any("another" in entry.path or "notes" in entry.path for entry in index.files)


def test_no_output_is_put_into_what_is_packed(packed_world: TinyWorld, archives: Path, refused: Refused) -> None:
    bundle, gallery = packed_world.bundle, packed_world.gallery
    for command in (
        ("bundle", "pack", bundle, "--gallery", gallery, "--key", archives / "key", "--out", bundle / "x.tar"),
        ("bundle", "triton", bundle, "--gallery", gallery, "--out", gallery / "models"),
        ("gallery", "split", gallery, "--out", gallery / "parts", "--grid", 100),
        ("gallery", "merge", gallery, "--out", gallery / "all"),
    ):
        assert "Name a place outside it" in refused(*command)


def test_a_gallery_named_twice_is_not_merged(packed_world: TinyWorld, tmp_path: Path, refused: Refused) -> None:
    gallery = packed_world.gallery
    assert "is named twice" in refused("gallery", "merge", gallery, gallery, "--out", tmp_path / "all")
