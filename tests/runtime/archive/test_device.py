"""A device has the old version or the new one, whole; and any damage to a version is repaired by its archive."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Outcome, Stop
from signed_archives import note_of, pack_next
from tiny_world import TinyWorld

from geodtr import Localizer, UserError
from geodtr.runtime.archive.install import rollback, unpack
from geodtr.runtime.archive.keys import new_key
from geodtr.runtime.errors import VersionDamaged
from geodtr.runtime.files import locked

Cli = Callable[..., Outcome]
Refused = Callable[..., str]
PROGRAM = [sys.executable, "-m", "geodtr"]


def test_a_device_is_installed_updated_and_set_back(
    archives: Path, packed_world: TinyWorld, tmp_path: Path, cli: Cli
) -> None:
    device = tmp_path / "device"
    first = cli("bundle", "unpack", archives / "first.tar", device, "--trust", archives / "key.pub")
    assert first.code == 0, first.err
    for line in ("note       first", "bundle", "gallery"):
        assert line in first.out
    photo = tmp_path / "photo.png"
    packed_world.photograph(photo, 4)
    for update, tiles in (("unpack", 8), ("rollback", 9), ("rollback", 8)):
        archive = [archives / "second.tar"] if update == "unpack" else []
        done = cli("bundle", update, *archive, device)
        assert done.code == 0, done.err
        with Localizer.open(device / "current" / "bundle", device / "current" / "gallery") as localizer:
            assert len(localizer.gallery) == tiles
            assert localizer.locate(photo).candidates[0].place.file.endswith("004.png")
    assert cli("bundle", "verify", device).code == 0
    assert {path.name for path in device.iterdir()} == {
        "current",
        "previous",
        "versions",
        "trusted.pem",
        "accepted-from",
    }


def test_an_older_archive_is_refused_unless_it_is_wanted(archives: Path, device: Path, cli: Cli) -> None:
    unpack(archives / "second.tar", device)
    refused = cli("bundle", "unpack", archives / "first.tar", device)
    assert refused.code == 2
    assert "--allow-older" in refused.err
    assert note_of(device) == "second"
    assert cli("bundle", "unpack", archives / "first.tar", device, "--allow-older").code == 0
    assert note_of(device) == "first"


def test_no_more_than_two_versions_are_kept(
    archives: Path, device: Path, packed_world: TinyWorld, tmp_path: Path
) -> None:
    unpack(archives / "second.tar", device)
    shutil.copy(archives / "key", tmp_path / "key")
    pack_next(packed_world.bundle, packed_world.gallery, tmp_path, "third")
    (device / "versions" / ".killed.unfinished-x").mkdir()
    unpack(tmp_path / "third.tar", device)
    assert len(list((device / "versions").iterdir())) == 2
    assert note_of(device) == "third"
    assert rollback(device).index.note == "second"


def test_the_same_archive_again_changes_nothing(archives: Path, device: Path) -> None:
    unpack(archives / "second.tar", device)
    unpack(archives / "second.tar", device)
    assert rollback(device).index.note == "first"


def test_without_an_earlier_version_there_is_none_to_return_to(device: Path, tmp_path: Path, refused: Refused) -> None:
    assert "no version before" in refused("bundle", "rollback", device)
    for command in ("rollback", "verify"):
        for folder in (tmp_path, tmp_path / "none"):
            assert "holds no version. To install one" in refused("bundle", command, folder)


def test_damage_to_an_installed_version_is_named(archives: Path, device: Path, refused: Refused, cli: Cli) -> None:
    unpack(archives / "second.tar", device)
    for link in ("previous", "current"):
        table = device / link / "gallery" / "references.sqlite"
        content = bytearray(table.read_bytes())
        content[1000] ^= 1
        table.write_bytes(content)
    checked = cli("bundle", "verify", device)
    assert checked.code == 1
    assert "references.sqlite is missing or damaged" in checked.err
    # A damaged version is not returned to.
    assert "references.sqlite is missing or damaged" in refused("bundle", "rollback", device)


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "an empty index": lambda version: (version / "index.json").write_bytes(b""),
    "no index": lambda version: (version / "index.json").unlink(),
    "an altered index": lambda version: _flip(version / "index.json"),
    "an altered signature": lambda version: _flip(version / "signature"),
    "a long signature": lambda version: (version / "signature").write_bytes(bytes(1000)),
    "an altered file": lambda version: _flip(version / "bundle" / "ground.onnx"),
    "a missing file": lambda version: (version / "gallery" / "gallery.json").unlink(),
    "a version removed by hand": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_version_is_left_by_rollback_and_repaired_by_its_archive(
    archives: Path, device: Path, damage: Callable[[Path], object], cli: Cli, refused: Refused
) -> None:
    unpack(archives / "second.tar", device)
    damage((device / "current").resolve())
    checked = cli("bundle", "verify", device)
    assert checked.code == 1
    assert f"geodtr-export bundle unpack ARCHIVE {device}" in checked.err
    assert rollback(device).index.note == note_of(device) == "first"
    assert any(text in refused("bundle", "rollback", device) for text in ("cannot be returned to", "no version before"))
    for _ in range(2):
        unpack(archives / "second.tar", device)
        assert note_of(device) == "second"
        damage((device / "current").resolve())
    unpack(archives / "second.tar", device)
    assert len(list((device / "versions").iterdir())) == 2
    assert rollback(device).index.note == "first"


def test_an_update_of_a_damaged_version_keeps_the_way_back_to_a_whole_one(
    archives: Path, device: Path, packed_world: TinyWorld, tmp_path: Path
) -> None:
    unpack(archives / "second.tar", device)
    (device / "current" / "index.json").write_bytes(b"")
    shutil.copy(archives / "key", tmp_path / "key")
    pack_next(packed_world.bundle, None, tmp_path, "third")
    unpack(tmp_path / "third.tar", device)
    assert note_of(device) == "third"
    assert rollback(device).index.note == "first"


def test_a_version_is_not_returned_to_when_its_key_was_withdrawn(
    archives: Path, device: Path, tmp_path: Path, refused: Refused
) -> None:
    unpack(archives / "second.tar", device)
    new_key(tmp_path / "key")
    shutil.copy(tmp_path / "key.pub", device / "trusted.pem")
    assert "its key was withdrawn" in refused("bundle", "rollback", device)


def test_what_is_removed_by_hand_lets_no_older_archive_in(archives: Path, device: Path, refused: Refused) -> None:
    unpack(archives / "second.tar", device)
    older = ("bundle", "unpack", archives / "first.tar", device)
    shutil.rmtree(device / "versions")
    assert "--allow-older" in refused(*older)
    for link in ("current", "previous"):
        (device / link).unlink()
    assert "--allow-older" in refused(*older)
    unpack(archives / "second.tar", device)
    assert note_of(device) == "second"
    (device / "accepted-from").write_bytes(b"")
    assert "accepted-from is damaged" in refused("bundle", "unpack", archives / "second.tar", device)
    unpack(archives / "second.tar", device, allow_older=True)
    (device / "accepted-from").unlink()  # as earlier versions had none
    assert "--allow-older" in refused(*older)


def test_the_older_version_that_is_in_use_can_be_repaired(archives: Path, device: Path, refused: Refused) -> None:
    unpack(archives / "second.tar", device)
    rollback(device)
    _flip(device / "current" / "bundle" / "ground.onnx")
    unpack(archives / "first.tar", device)
    assert note_of(device) == "first"
    # The newer one stays the measure.
    shutil.rmtree(device / "versions")
    (device / "current").unlink()
    assert "--allow-older" in refused("bundle", "unpack", archives / "first.tar", device)


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


@pytest.mark.parametrize("step", ["unpack", "rollback", "repair"])
def test_whenever_it_ends_the_device_has_the_old_version_or_the_new_one(
    archives: Path,
    device: Path,
    tmp_path: Path,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
    each_call: Callable[[int], None],
) -> None:
    seen = set[str | None]()
    if step != "unpack":
        unpack(archives / "second.tar", device)
    if step == "repair":
        _flip(device / "current" / "bundle" / "ground.onnx")
    before = device
    for last in range(200):
        device = shutil.copytree(before, tmp_path / str(last), symlinks=True)
        each_call(last)
        ended = False
        with suppress(Stop):
            if step == "rollback":
                rollback(device)
            else:
                unpack(archives / "second.tar", device)
            ended = True
        monkeypatch.undo()
        try:
            seen.add(note_of(device))
        except VersionDamaged:
            seen.add("damaged")
        if step == "repair":
            assert (device / "previous").resolve(strict=True).is_dir()
        unpack(archives / "second.tar", device, allow_older=True)
        assert note_of(device) == "second"
        if ended:
            break
    assert ended
    assert seen == {"damaged" if step == "repair" else "first", "second"}
    assert last > 3


@pytest.mark.slow
def test_whenever_it_is_killed_the_device_has_the_old_version_or_the_new_one(archives: Path, tmp_path: Path) -> None:
    device = tmp_path / "device"
    for delay in _delays():
        unpack(archives / "first.tar", device, [archives / "key.pub"], allow_older=True)
        line = [*PROGRAM, "bundle", "unpack", str(archives / "second.tar"), str(device)]
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert note_of(device) in ("first", "second")


def _delays() -> Iterator[float]:
    return (0.2 + 0.01 * number for number in range(60))


def test_two_installations_at_once_do_not_mix(archives: Path, device: Path) -> None:
    with locked(device), pytest.raises(UserError, match="Another process installs"):
        unpack(archives / "second.tar", device)
    assert note_of(device) == "first"
