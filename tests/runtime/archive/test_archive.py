"""A signed archive installs whole or not at all, from trusted keys alone; one command returns to the version before."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from conftest import Outcome, Stop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_world import ID, TinyWorld, make_world

from geodtr import Localizer, UserError, open_bundle
from geodtr.runtime.archive import format as archive_format
from geodtr.runtime.archive import install, pack
from geodtr.runtime.archive.install import current, rollback, unpack
from geodtr.runtime.archive.keys import new_key
from geodtr.runtime.errors import ArchiveError, EmbeddingSpaceMismatch, GalleryError
from geodtr.runtime.files import locked
from geodtr.runtime.gallery.folder.writer import FolderWriter

Cli = Callable[..., Outcome]
Refused = Callable[..., str]
PROGRAM = [sys.executable, "-m", "geodtr"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return make_world(tmp_path_factory.mktemp("tiny"), 3)


@pytest.fixture(scope="module")
def root(tiny: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a key and two archives, of which `second.tar` was made later and holds a tile less."""
    root = tmp_path_factory.mktemp("archives")
    new_key(root / "key")
    _pack(tiny.bundle, tiny.gallery, root, "first")
    changed = root / "changed"
    shutil.copytree(tiny.gallery, changed)
    with FolderWriter(changed) as writer:
        writer.remove(["000.png"])
    _pack(tiny.bundle, changed, root, "second")
    return root


def _pack(bundle: Path, gallery: Path, root: Path, name: str) -> None:
    time.sleep(1.01)  # an archive's time is in whole seconds
    pack.pack(bundle, gallery, root / "key", root / f"{name}.tar", note=name)


@pytest.fixture
def device(root: Path, tmp_path: Path) -> Path:
    """A device that has the first archive."""
    unpack(root / "first.tar", tmp_path / "device", [root / "key.pub"])
    return tmp_path / "device"


def note_of(device: Path) -> str | None:
    """The note of the current version, of which every file is read."""
    return install.verify(device).index.note if current(device) else None


def test_a_device_is_installed_updated_and_set_back(root: Path, tiny: TinyWorld, tmp_path: Path, cli: Cli) -> None:
    device = tmp_path / "device"
    first = cli("bundle", "unpack", root / "first.tar", device, "--trust", root / "key.pub")
    assert first.code == 0, first.err
    for line in ("note       first", "bundle", "gallery"):
        assert line in first.out
    photo = tmp_path / "photo.png"
    tiny.photograph(photo, 4)
    for update, tiles in (("unpack", 8), ("rollback", 9), ("rollback", 8)):
        archive = [root / "second.tar"] if update == "unpack" else []
        done = cli("bundle", update, *archive, device)
        assert done.code == 0, done.err
        with Localizer.open(device / "current" / "bundle", device / "current" / "gallery") as localizer:
            assert len(localizer.gallery) == tiles
            assert localizer.locate(photo).candidates[0].place.file.endswith("004.png")
    assert cli("bundle", "verify", device).code == 0
    assert {path.name for path in device.iterdir()} == {"current", "previous", "versions", "trusted.pem"}


def test_an_older_archive_is_refused_unless_it_is_wanted(root: Path, device: Path, cli: Cli) -> None:
    unpack(root / "second.tar", device)
    refused = cli("bundle", "unpack", root / "first.tar", device)
    assert refused.code == 2
    assert "--allow-older" in refused.err
    assert note_of(device) == "second"
    assert cli("bundle", "unpack", root / "first.tar", device, "--allow-older").code == 0
    assert note_of(device) == "first"


def test_no_more_than_two_versions_are_kept(root: Path, device: Path, tiny: TinyWorld, tmp_path: Path) -> None:
    unpack(root / "second.tar", device)
    shutil.copy(root / "key", tmp_path / "key")
    _pack(tiny.bundle, tiny.gallery, tmp_path, "third")
    (device / "versions" / ".killed.unfinished-x").mkdir()
    unpack(tmp_path / "third.tar", device)
    assert len(list((device / "versions").iterdir())) == 2
    assert note_of(device) == "third"
    assert rollback(device).index.note == "second"


def test_the_same_archive_again_changes_nothing(root: Path, device: Path) -> None:
    unpack(root / "second.tar", device)
    unpack(root / "second.tar", device)
    assert rollback(device).index.note == "first"


def test_without_an_earlier_version_there_is_none_to_return_to(device: Path, tmp_path: Path, refused: Refused) -> None:
    assert "no version before" in refused("bundle", "rollback", device)
    for command in ("rollback", "verify"):
        for folder in (tmp_path, tmp_path / "none"):
            assert "holds no version. To install one" in refused("bundle", command, folder)


def test_only_archives_of_trusted_keys_are_installed(
    root: Path, device: Path, tmp_path: Path, tiny: TinyWorld, refused: Refused, cli: Cli
) -> None:
    new_key(tmp_path / "key")
    _pack(tiny.bundle, tiny.gallery, tmp_path, "others")
    assert "not signed by a key" in refused("bundle", "unpack", tmp_path / "others.tar", device)
    assert "--trust KEY.pub" in refused("bundle", "unpack", root / "first.tar", tmp_path / "new")
    assert cli("bundle", "unpack", tmp_path / "others.tar", device, "--trust", tmp_path / "key.pub").code == 0
    # Both keys are trusted from now on.
    unpack(root / "first.tar", device, allow_older=True)
    assert "holds no Ed25519 private key" in refused(
        "bundle", "pack", tiny.bundle, "--key", root / "key.pub", "--out", tmp_path / "x.tar"
    )
    assert "does not hold Ed25519 public keys" in refused(
        "bundle", "unpack", root / "first.tar", device, "--trust", root / "key"
    )
    assert "cannot be read" in refused("bundle", "unpack", root / "first.tar", device, "--trust", tmp_path / "none")


def test_a_private_key_is_its_owners_and_is_never_overwritten(root: Path, refused: Refused) -> None:
    assert (root / "key").stat().st_mode & 0o777 == 0o600
    assert "exists" in refused("bundle", "key", root / "key")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_archive_with_any_damage_installs_nothing(root: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = (root / "first.tar").read_bytes()
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
        unpack(archive, device, [root / "key.pub"])
    except ArchiveError:
        assert current(device) is None
        assert not any((device / "versions").glob("*")) if (device / "versions").exists() else True
    else:  # a header's owner, or bytes after a file up to a whole block, are of no use
        assert note_of(device) == "first"
        shutil.rmtree(device)


def test_what_is_no_archive_is_refused(tmp_path: Path, root: Path, refused: Refused) -> None:
    other, device = tmp_path / "other.tar", tmp_path / "device"
    with tarfile.open(other, "w") as file:
        file.add(root / "key.pub", "../../key.pub")
    for path, reason in ((other, "is not an archive"), (tmp_path, "directory"), (tmp_path / "none", "No such file")):
        assert reason in refused("bundle", "unpack", path, device, "--trust", root / "key.pub")
    other.write_bytes(b"")
    assert "is not an archive" in refused("bundle", "unpack", other, device, "--trust", root / "key.pub")


@pytest.mark.parametrize("path", ["bundle/../../x", "/etc/passwd", "bundle/.hidden", "other/x", "bundle", "bundle//x"])
def test_a_signed_path_outside_the_version_is_refused(path: str) -> None:
    index = archive_format.Index(
        format=1, toolkit="1", created="20260101T000000Z", embedding_id="x", note="", files=(_entry(path),)
    )
    with pytest.raises(ArchiveError, match="cannot be put into an archive"):
        archive_format.encode_index(index)
    with pytest.raises(ArchiveError, match="Update geodtr-export"):
        archive_format.decode_index(msgspec.json.encode(index), "x.tar")


def _entry(path: str) -> archive_format.FileEntry:
    return archive_format.FileEntry(path, 0, "0" * 64)


def test_tar_and_openssl_can_read_it(root: Path, tiny: TinyWorld, tmp_path: Path) -> None:
    with tarfile.open(root / "first.tar") as file:
        file.extractall(tmp_path, filter="data")
    assert open_bundle(tmp_path / "bundle").manifest == open_bundle(tiny.bundle).manifest
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(root / "key.pub"), "-rawin"]
    command += ["-in", "index.json", "-sigfile", "signature"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Successfully" in done.stdout, done.stderr


def test_a_gallery_of_another_model_or_in_use_is_not_packed(root: Path, tiny: TinyWorld, tmp_path: Path) -> None:
    with FolderWriter(tiny.gallery), pytest.raises(GalleryError):
        pack.pack(tiny.bundle, tiny.gallery, root / "key", tmp_path / "x.tar")
    other = _changed(tiny.bundle, tmp_path / "bundle", ID, "another")
    with pytest.raises(EmbeddingSpaceMismatch, match="gallery build"):
        pack.pack(other, tiny.gallery, root / "key", tmp_path / "x.tar")
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
    root: Path, device: Path, tiny: TinyWorld, tmp_path: Path, cli: Cli
) -> None:
    bundle = _changed(tiny.bundle, tmp_path / "bundle", '"provider": "cpu"', '"provider": "cuda"')
    time.sleep(1.01)
    pack.pack(bundle, None, root / "key", tmp_path / "cuda.tar", note="cuda")
    refused = cli("bundle", "unpack", tmp_path / "cuda.tar", device)
    assert refused.code == 2
    assert "does not run on this machine" in refused.err
    assert note_of(device) == "first"
    assert cli("bundle", "unpack", tmp_path / "cuda.tar", device, "--elsewhere").code == 0
    assert note_of(device) == "cuda"


def test_damage_to_an_installed_version_is_named(root: Path, device: Path, refused: Refused) -> None:
    unpack(root / "second.tar", device)
    for link in ("previous", "current"):
        table = device / link / "gallery" / "references.sqlite"
        content = bytearray(table.read_bytes())
        content[1000] ^= 1
        table.write_bytes(content)
    assert "references.sqlite is missing or damaged" in refused("bundle", "verify", device)
    # A damaged version is not returned to.
    assert "references.sqlite is missing or damaged" in refused("bundle", "rollback", device)


@pytest.fixture
def each_call(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the process end at the n-th call that changes the disk."""

    def arm(last: int) -> None:
        left = iter(range(last))

        def counted(call: Callable[..., object]) -> Callable[..., object]:
            def run(*arguments: object, **options: object) -> object:
                if next(left, None) is None:
                    raise Stop
                return call(*arguments, **options)

            return run

        for owner, name in ((Path, "replace"), (Path, "symlink_to"), (Path, "unlink"), (Path, "mkdir"), (os, "fsync")):
            monkeypatch.setattr(owner, name, counted(getattr(owner, name)))

    return arm


@pytest.mark.parametrize("step", ["unpack", "rollback"])
def test_whenever_it_ends_the_device_has_the_old_version_or_the_new_one(
    root: Path, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch, each_call: Callable[[int], None]
) -> None:
    seen = set[str | None]()
    for last in range(200):
        device = tmp_path / str(last)
        with monkeypatch.context():
            unpack(root / "first.tar", device, [root / "key.pub"])
            if step == "rollback":
                unpack(root / "second.tar", device)
        each_call(last)
        ended = False
        with suppress(Stop):
            if step == "unpack":
                unpack(root / "second.tar", device)
            else:
                rollback(device)
            ended = True
        monkeypatch.undo()
        seen.add(note_of(device))
        unpack(root / "second.tar", device, allow_older=True)
        assert note_of(device) == "second"
        if ended:
            break
    assert ended
    assert seen == {"first", "second"}
    assert last > 3


@pytest.mark.slow
def test_whenever_it_is_killed_the_device_has_the_old_version_or_the_new_one(root: Path, tmp_path: Path) -> None:
    device = tmp_path / "device"
    for delay in _delays():
        unpack(root / "first.tar", device, [root / "key.pub"], allow_older=True)
        line = [*PROGRAM, "bundle", "unpack", str(root / "second.tar"), str(device)]
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert note_of(device) in ("first", "second")


def _delays() -> Iterator[float]:
    return (0.2 + 0.01 * number for number in range(60))


def test_two_installations_at_once_do_not_mix(root: Path, device: Path) -> None:
    with locked(device), pytest.raises(UserError, match="Another process installs"):
        unpack(root / "second.tar", device)
    assert note_of(device) == "first"
