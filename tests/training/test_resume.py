"""A run that was stopped or killed resumes to the same model, to the last bit."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Losses, Outcome, Stop, Stopping, World
from PIL import Image

from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.listener import Step, Validation
from geodtr.training.loop import resume, train
from geodtr.training.presets.load import load_preset

COMMAND = [sys.executable, "-m", "geodtr.cli.main"]
SETTINGS = ("recipe.epochs=6", "recipe.semantic=weak", "model.dropout=0.1")


@pytest.fixture(scope="module")
def few(world: World) -> PairSet:
    return world.train_set.first(48)


@pytest.fixture(scope="module")
def uninterrupted(few: PairSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], bytes]:
    heard = Losses()
    checkpoint = train(
        load_preset("world-tiny", SETTINGS), few, tmp_path_factory.mktemp("whole") / "run", listener=heard
    )
    return heard.losses, checkpoint.read_bytes()


@pytest.mark.parametrize("setting", ["machine.cache_gb=4", "machine.cache_gb=0", "machine.save_minutes=1e-9"])
def test_a_crashed_run_repeats_its_losses_to_the_last_digit(
    few: PairSet, uninterrupted: tuple[list[float], bytes], tmp_path: Path, setting: str
) -> None:
    losses, model = uninterrupted
    first, second = Stopping(after=8), Losses()
    with pytest.raises(Stop):
        train(load_preset("world-tiny", [*SETTINGS, setting]), few, tmp_path / "run", listener=first)
    checkpoint = resume(tmp_path / "run", few, listener=second)
    assert first.losses == losses[:8]
    # It went on from its last save: after every epoch of 3 steps, or every step.
    assert second.losses == losses[7 if "save_minutes" in setting else 6 :]
    assert checkpoint.read_bytes() == model


class Rival(Losses):
    """Tries to resume the run that is being trained."""

    def __init__(self, run: Path, pair_set: PairSet) -> None:
        super().__init__()
        self.run, self.pair_set = run, pair_set

    def on_step(self, step: Step) -> None:
        super().on_step(step)
        with pytest.raises(CheckpointError, match="another process trains it"):
            resume(self.run, self.pair_set)


def test_a_run_is_trained_by_one_process_at_a_time(
    few: PairSet, uninterrupted: tuple[list[float], bytes], tmp_path: Path
) -> None:
    losses, model = uninterrupted
    first = Rival(tmp_path / "run", few)
    assert train(load_preset("world-tiny", SETTINGS), few, tmp_path / "run", listener=first).read_bytes() == model
    assert first.losses == losses
    assert resume(tmp_path / "run", few).read_bytes() == model


def test_a_training_that_cannot_begin_leaves_no_folder(few: PairSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        train(load_preset("world-tiny", ["recipe.batch_size=64"]), few, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGINT, signal.SIGKILL))],
)
def test_a_run_stopped_by_a_signal_resumes_to_the_same_model(
    few: PairSet,
    uninterrupted: tuple[list[float], bytes],
    tmp_path: Path,
    number: signal.Signals,
    cli: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = few.pairs[0].ground.parents[1]
    options = [option for setting in SETTINGS for option in ("--set", setting)]
    command = ["train", "--data", f"pairs:{folder}", "--limit", "48", "--preset", "world-tiny", *options]
    process = subprocess.Popen([*COMMAND, *command, "--out", "run"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    _wait_for(tmp_path / "run" / "state.safetensors", process)
    process.send_signal(number)
    _, output = process.communicate(timeout=60)
    if number != signal.SIGKILL and process.returncode != 0:
        assert process.returncode == 128 + number
        assert "geodtr-export resume run" in output
        assert "Traceback" not in output
    # From another working directory: the run knows where its data is.
    monkeypatch.chdir("/")
    done = cli("resume", tmp_path / "run")
    assert done.code == 0, done.err
    assert not list((tmp_path / "run").glob(".*.safetensors")) or number == signal.SIGKILL
    from safetensors.torch import load

    expected, got = load(uninterrupted[1]), load((tmp_path / "run" / "last.safetensors").read_bytes())
    assert all(expected[name].equal(got[name]) for name in expected)


def test_an_impossible_resume_is_refused(
    few: PairSet, tmp_path: Path, refused: Callable[..., str], cli: Callable[..., object]
) -> None:
    assert "holds no resumable run" in refused("resume", tmp_path)
    config = load_preset("world-tiny", ["recipe.epochs=2"], {"data.train": few.name.split(" ")[0], "data.limit": 48})
    with pytest.raises(Stop):
        train(config, few, tmp_path / "run", listener=Stopping(after=4))
    state = tmp_path / "run" / "state.safetensors"
    whole = state.read_bytes()
    state.write_bytes(whole[:1000])
    assert "is not the state of a resumable run" in refused("resume", tmp_path / "run")
    state.write_bytes(whole)
    config_file = tmp_path / "run" / "config.toml"
    text = config_file.read_text()
    config_file.write_text(text.replace("limit = 48", "limit = 40"))
    assert "no longer lists" in refused("resume", tmp_path / "run")
    config_file.write_text(text)
    cli("resume", tmp_path / "run")
    # A finished run is left as it is.
    before = state.stat().st_mtime_ns
    cli("resume", tmp_path / "run")
    assert state.stat().st_mtime_ns == before


def _wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < deadline, "training did not begin"
        time.sleep(0.01)
    assert path.exists()


class _StoppingAtValidation(Losses):
    """Fails on a validation, before anything of it is written."""

    def on_validation(self, validation: Validation) -> None:
        super().on_validation(validation)
        raise Stop


def test_a_run_that_crashed_while_validating_validates_again(world: World, few: PairSet, tmp_path: Path) -> None:
    config = load_preset("world-tiny", ["recipe.epochs=2"])
    validation = world.test_set.first(40)
    whole, first, second = Losses(), _StoppingAtValidation(), Losses()
    train(config, few, tmp_path / "whole", validation=validation, listener=whole)
    with pytest.raises(Stop):
        train(config, few, tmp_path / "run", validation=validation, listener=first)
    resume(tmp_path / "run", few, validation=validation, listener=second)
    assert first.losses + second.losses == whole.losses
    expected = [(entry.epoch, entry.recall, entry.best) for entry in whole.validations]
    assert [(entry.epoch, entry.recall, entry.best) for entry in second.validations] == expected
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_images_that_changed_or_can_no_longer_be_read_do_not_change_a_run_in_silence(
    world: World, tmp_path: Path, refused: Callable[..., str], cli: Callable[..., Outcome]
) -> None:
    folder = tmp_path / "pairs"
    shutil.copytree(world.test_set.pairs[0].ground.parents[1], folder)
    config = load_preset(
        "world-tiny", ["recipe.epochs=2"], {"data.train": f"pairs:{folder}", "data.limit": 32, "recipe.batch_size": 16}
    )
    with pytest.raises(Stop):
        train(config, read_pairs(folder).first(32), tmp_path / "run", listener=Stopping(after=3))
    image = folder / "ground" / "000003.png"
    whole = image.read_bytes()
    image.write_bytes(bytes(len(whole)))
    assert "or have other contents" in refused("resume", tmp_path / "run")
    image.write_bytes((folder / "ground" / "000004.png").read_bytes())
    assert "or have other contents" in refused("resume", tmp_path / "run")
    image.write_bytes(whole)
    # Data that was moved is found at the path that the user gives.
    moved = folder.rename(tmp_path / "moved")
    assert "is not a folder" in refused("resume", tmp_path / "run")
    assert cli("resume", tmp_path / "run", "--data", f"pairs:{moved}").code == 0


def test_an_image_of_many_that_can_no_longer_be_read_is_missed(
    world: World, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large data sets, not every file's contents are compared."""
    monkeypatch.setattr("geodtr.training.run.folder._READ_WHOLE", 2)
    folder = tmp_path / "pairs"
    shutil.copytree(world.test_set.pairs[0].ground.parents[1], folder)
    settings = {"data.train": f"pairs:{folder}", "data.limit": 32, "recipe.batch_size": 16}
    with pytest.raises(Stop):
        train(
            load_preset("world-tiny", ["recipe.epochs=2"], settings),
            read_pairs(folder).first(32),
            tmp_path / "run",
            listener=Stopping(after=3),
        )
    image = folder / "ground" / "000003.png"
    image.write_bytes(bytes(image.stat().st_size))
    assert "other images are readable" in refused("resume", tmp_path / "run")


@pytest.mark.parametrize("change", ["pixels", "position"])
def test_other_data_in_files_of_the_same_names_and_sizes_is_refused(
    world: World, tmp_path: Path, refused: Callable[..., str], cli: Callable[..., Outcome], change: str
) -> None:
    """Files without compression have one size for all images."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    rows = ["ground,aerial,lat,lon"]
    for row, pair in enumerate(world.test_set.pairs[:32]):
        ground, aerial = f"ground{row}.bmp", f"aerial{row}.bmp"
        for source, name in ((pair.ground, ground), (pair.aerial, aerial)):
            Image.open(source).convert("RGB").save(folder / name)
        rows.append(f"{ground},{aerial},47.{row:03},8.5")
    table = folder / "pairs.csv"
    table.write_text("\n".join(rows))
    config = load_preset("world-tiny", ["recipe.epochs=2"], {"data.train": f"pairs:{folder}", "recipe.batch_size": 16})
    with pytest.raises(Stop):
        train(config, read_pairs(folder), tmp_path / "run", listener=Stopping(after=3))
    changed = table if change == "position" else folder / "aerial7.bmp"
    before = changed.read_bytes()
    after = before.replace(b"47.007", b"47.700") if change == "position" else (folder / "aerial8.bmp").read_bytes()
    assert len(after) == len(before) and after != before
    changed.write_bytes(after)
    assert "no longer lists the pairs of run run, or" in refused("resume", tmp_path / "run")
    changed.write_bytes(before)
    assert cli("resume", tmp_path / "run").code == 0
