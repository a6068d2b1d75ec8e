"""`bench` reports its measurements, and the speed gate rejects slow engines. No test asserts a duration."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from conftest import Outcome, Trained
from PIL import Image

from geodtr import BuildRequest, Float, build_engine
from geodtr.cli.console import output
from geodtr.export.bench.measure import run_bench
from geodtr.export.model import open_model
from geodtr.export.speed import check_faster
from geodtr.export.timing import Timing
from geodtr.runtime.errors import GateNotMet, ImageError
from geodtr.runtime.machine import this_cpu
from geodtr.runtime.manifest import Ratio, SearchEntry, Speed, SpeedEntry, TrialEntry, read_manifest
from geodtr.runtime.names import Precision
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.views import Views

Cli = Callable[..., Outcome]
QUICK = ("--rounds", 2, "--openings", 0)


def test_every_model_branch_and_batch_has_its_figures(trained: Trained, cli: Cli, tmp_path: Path) -> None:
    picture = tmp_path / "bench.png"
    bundles = [trained.bundles["fp32"].path, trained.bundles["int8"].path]
    command = ("bench", *bundles, "--batch", "1,3", "--rounds", 2, "--json", "--out", picture)
    result = cli(*command)
    assert result.code == 0, result.err
    report = json.loads(result.out)
    rows = report["rows"]
    assert {(row["model"], row["branch"], row["batch"]) for row in rows} == {
        (model, branch, batch) for model in ("fp32", "int8") for branch in ("ground", "aerial") for batch in (1, 3)
    }
    for row in rows:
        assert row["latency"] <= row["latency_p95"] <= row["latency_p99"]
        assert row["speed"]["slowest"] <= row["speed"]["median"] <= row["speed"]["fastest"]
        assert row["calls"] >= 2
        assert row["seconds_to_open"] > 0
        assert 10e6 < row["memory"] < 1e9, "measured in the process that opens the bundle, not in this one"
        if row["model"] == "fp32":
            assert row["ratio"]["median"] == 1
            assert row["times_fp32"] is None
        else:
            assert row["times_fp32"] == row["ratio"]
    assert report["packages"]["onnxruntime"]
    assert Image.open(picture).size[0] > 1000


def test_pytorch_and_temporary_engines_are_measured_beside_a_bundle(trained: Trained, cli: Cli) -> None:
    command = ("bench", trained.bundles["int8"].path, trained.checkpoint, "--against", "torch,onnxruntime")
    result = cli(*command, "--batch", 2, *QUICK, "--json")
    assert result.code == 0, result.err
    findings = {(row["model"], row["runs_by"], row["precision"]) for row in json.loads(result.out)["rows"]}
    assert findings == {
        ("int8", "onnxruntime", "int8"),
        ("PyTorch", "torch", "fp32"),
        ("onnxruntime fp32", "onnxruntime", "fp32"),
    }


def test_images_of_a_data_set_may_be_embedded_instead_of_noise(trained: Trained, cli: Cli) -> None:
    command = ("bench", trained.bundles["fp32"].path, "--batch", 2, "--data", trained.test_set.name)
    assert json.loads(cli(*command, *QUICK, "--json").out)["images"] == trained.test_set.name


def test_layers_are_listed_by_name_kind_and_time(trained: Trained, cli: Cli) -> None:
    command = ("bench", trained.bundles["int8"].path, "--batch", 1, "--layers", *QUICK)
    report = json.loads(cli(*command, "--json").out)
    assert [entry["branch"] for entry in report["layers"]] == ["ground", "aerial"]
    for entry in report["layers"]:
        times = [layer["milliseconds"] for layer in entry["layers"]]
        assert times == sorted(times, reverse=True)
        assert "QLinearConv" in {layer["kind"] for layer in entry["layers"]}


@pytest.mark.parametrize("width", [40, 60, 100])
def test_tables_fit_the_terminal_and_cut_no_figure(
    trained: Trained, cli: Cli, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    command = ("bench", trained.bundles["fp32"].path, trained.bundles["int8"].path, "--batch", "1", "--layers", *QUICK)
    monkeypatch.setattr(output, "_force_terminal", True)  # a pipe has no width
    monkeypatch.setattr(output, "_width", width)
    printed = re.sub(r"\x1b\[[0-9;]*m", "", cli(*command).out)
    assert "img/s" in printed
    assert ("not shown in" in printed) == (width < 100)
    assert "…" not in printed
    assert width < 100 or max(map(len, printed.splitlines())) <= width
    figures = [line for line in printed.splitlines() if re.search(r"  [0-9.,]+", line)]
    assert len(figures) >= 4
    assert max(map(len, figures)) <= width


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--batch", "0"), "--batch '0'"),
        (("--batch", "1,x"), "--batch '1,x'"),
        (("--against", "torch, abacus"), "'abacus' cannot be measured against; allowed: torch, onnxruntime"),
        (("--against", "torch"), "name the checkpoint"),
        (("--against", "onnxruntime"), "needs float32 graphs"),
        (("--require-faster",), "name the fp32 bundle"),
        (("--out", "speed.pdf"), ".png"),
    ],
)
def test_impossible_measurements_are_refused_before_any_work(
    trained: Trained, refused: Callable[..., str], options: tuple[str, ...], named: str
) -> None:
    assert named in " ".join(refused("bench", trained.bundles["int8"].path, *options).split())


def test_without_matplotlib_a_picture_is_refused_before_any_work(
    trained: Trained, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    command = ("bench", trained.bundles["int8"].path, "--rounds", 1_000_000)
    assert "[plots]" in refused(*command, "--out", tmp_path / "speed.png")


def test_fp32_alone_has_nothing_to_be_faster_than(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert "All models are fp32" in refused("bench", trained.bundles["fp32"].path, "--require-faster")
    command = ("build-engine", trained.onnx.path, "--precision", "fp32", "--require-faster")
    assert "--require-faster is not for fp32" in refused(*command, "--out", tmp_path / "b")


@pytest.mark.parametrize(("seconds", "code"), [(0.002, 1), (0.0005, 0)])
def test_require_faster_fails_only_if_an_engine_is_slower(
    trained: Trained, cli: Cli, monkeypatch: pytest.MonkeyPatch, seconds: float, code: int
) -> None:
    """The clock is the one thing replaced: the second model takes `seconds` a call, the first 0.001."""
    timings = [Timing(1, ((0.001,), (0.001,))), Timing(1, ((seconds,), (seconds,)))]
    monkeypatch.setattr("geodtr.export.bench.measure.time_embedders", lambda *_args, **_kwargs: timings)
    command = ("bench", trained.bundles["fp32"].path, trained.bundles["fp16"].path, "--batch", 1, *QUICK)
    gated = cli(*command, "--require-faster")
    assert gated.code == code
    assert ("not faster than fp32, 0.50 x" in gated.err) == bool(code)
    assert cli(*command).code == 0


def test_an_engine_that_is_not_faster_is_not_left_behind_when_speed_is_required(
    trained: Trained, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    _clock(monkeypatch, (0.001, 0.0005), (0.001, 0.002))
    out = tmp_path / "slow"
    result = cli("build-engine", trained.onnx.path, "--precision", "fp16", "--require-faster", "--out", out)
    assert result.code == 1
    assert "not faster than fp32" in result.err
    assert "0.50 times as fast, aerial 2.00" in result.err
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_is_faster_carries_the_ratio(
    trained: Trained, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    _clock(monkeypatch, (0.0005, 0.001), (0.001, 0.0015))
    out = tmp_path / "fast"
    command = ("build-engine", trained.onnx.path, "--precision", "fp16", "--require-faster", "--speed-batch", 4)
    result = cli(*command, "--out", out)
    assert result.code == 0, result.err
    speed = read_manifest(out).speed
    assert speed is not None
    assert speed.ground == Ratio(median=2, lowest=2, highest=2)
    assert speed.aerial.median == pytest.approx(1.5)
    assert speed.both.median == pytest.approx(2.5 / 1.5)
    assert speed.batch == 4
    assert "2.00 x (2.00 to 2.00)" in " ".join(cli("inspect", out).out.split())


def test_the_gate_measures_the_engine_that_was_built(trained: Trained, tmp_path: Path) -> None:
    request = BuildRequest(trained.onnx.path, tmp_path / "b", plan=Float("fp16"), require_faster=True)
    try:
        built = build_engine(request)
    except GateNotMet:
        assert list(tmp_path.iterdir()) == []
    else:
        assert built.manifest.speed is not None
        check_faster(built.manifest.speed, built.manifest)


def test_one_slow_branch_is_enough_to_fail(trained: Trained) -> None:
    fast, slow = Ratio(median=2, lowest=1.9, highest=2.1), Ratio(median=0.9, lowest=0.8, highest=1.2)
    manifest = trained.bundles["int8"].manifest
    check_faster(SpeedEntry(batch=1, ground=fast, aerial=fast, both=fast), manifest)
    with pytest.raises(GateNotMet, match=r"aerial 0\.90, at batch 1"):
        check_faster(SpeedEntry(batch=1, ground=fast, aerial=slow, both=fast), manifest)


def test_a_branch_that_a_search_left_float32_need_not_be_faster_than_float32(trained: Trained) -> None:
    entry = trained.bundles["int8"].manifest.quantisation
    assert entry is not None
    trial = TrialEntry(blocks=("ground/a",), queries=9, complete=True, lost=0, gained=0, low=0, high=0)
    search = SearchEntry(
        tolerance=1,
        data="pairs:x",
        data_sha256="",
        machine=this_cpu(),
        batch=1,
        chosen=trial,
        sensitivity=(),
        trials=(trial,),
    )
    mixed = msgspec.structs.replace(
        trained.bundles["int8"].manifest,
        precision="mixed",
        quantisation=msgspec.structs.replace(entry, search=search),
    )
    fast, even = Ratio(median=2, lowest=1.9, highest=2.1), Ratio(median=0.99, lowest=0.9, highest=1.1)
    check_faster(SpeedEntry(batch=1, ground=fast, aerial=even, both=fast), mixed)
    with pytest.raises(GateNotMet):
        check_faster(SpeedEntry(batch=1, ground=even, aerial=fast, both=fast), mixed)


def test_nothing_is_timed_without_the_option(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    command = ("build-engine", trained.onnx.path, "--precision", "fp16", "--speed-batch", 4, "--out", tmp_path / "b")
    assert "add --require-faster" in " ".join(refused(*command).split())


def test_ratios_are_taken_within_a_round() -> None:
    """A neighbour that doubles every time of one round leaves the ratio as it is."""
    base = Timing(1, ((1.0,), (2.0,), (1.0,)))
    twice = Timing(1, ((0.5,), (1.0,), (0.5,)))
    assert twice.ratio(base) == Ratio(median=2, lowest=2, highest=2)
    assert base.speed == Speed(median=1.0, slowest=0.5, fastest=1.0)
    assert (base.latency(0.5), base.calls) == (1000, 3)


@pytest.mark.parametrize("fastest", [0.5, 1.1])
def test_parity_warns_of_an_engine_that_is_slower_than_fp32_in_every_round(
    trained: Trained, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, fastest: float
) -> None:
    rounds = ((0.01,) * 3, (0.001,) * 3, (0.002, 0.002, 0.001 / fastest))
    timings = [{"both": Timing(1, tuple((seconds,) for seconds in each))} for each in rounds]
    monkeypatch.setattr("geodtr.export.parity.comparison.time_pairs", lambda *_args, **_kwargs: timings)
    names: tuple[Precision, ...] = ("fp32", "fp16")
    bundles = [shutil.copytree(trained.bundles[name].path, tmp_path / name) for name in names]
    result = cli("parity", trained.checkpoint, *bundles, "--data", trained.test_set.name, "--limit", 20)
    message = " ".join(result.err.split())
    assert ("fp16 is slower here than fp32: 0.50 x" in message) == (fastest < 1)
    assert ("slower" in message) == (fastest < 1)


def test_images_of_a_set_are_what_is_seen_of_its_panoramas(trained: Trained) -> None:
    pair = trained.test_set.pairs[0]
    square = PairSet("pairs:square", (replace(pair, ground=pair.aerial),)).seen(Views(90))
    with pytest.raises(ImageError, match="no full turn"):
        run_bench([open_model(trained.bundles["fp32"].path)], batches=(1,), openings=0, data=square)


def test_models_of_the_same_name_are_distinguished_by_their_folder(trained: Trained, tmp_path: Path) -> None:
    other = shutil.copytree(trained.bundles["fp32"].path, tmp_path / "other" / "fp32")
    report = run_bench(
        [open_model(trained.bundles["fp32"].path), open_model(other)], batches=(1,), rounds=2, openings=0
    )
    assert {row.model for row in report.rows} == {f"{trained.onnx.path.parent.name}/fp32", "other/fp32"}


def _clock(monkeypatch: pytest.MonkeyPatch, *branches: tuple[float, float]) -> None:
    """Replace the gate's clock: for each branch in turn, what a call takes of the engine and of the float32 one."""
    turns = iter(branches)

    def timings(*_args: object, **_kwargs: object) -> list[Timing]:
        engine, float32 = next(turns)
        return [Timing(1, ((seconds,), (seconds,))) for seconds in (float32, engine)]

    monkeypatch.setattr("geodtr.export.timing.time_embedders", timings)
