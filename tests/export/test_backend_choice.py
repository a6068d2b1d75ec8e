"""`--backend auto` keeps the fastest backend that passes its checks, and the manifest records the measurements.

ONNX Runtime and OpenVINO run here unchanged; NVIDIA's builder builds the plans of TensorRT-RTX, and a fake runs them.
"""

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from backend_stand_ins import Crashing, delay, stand_in
from conftest import Outcome, Trained
from faulty_builder import Faulty
from rtx_on_fakes import RtxMachine
from tensorrt_on_fakes import Model

from geodtr import (
    Auto,
    BuildRequest,
    Bundle,
    Calibration,
    FastestBackend,
    Float,
    Quantized,
    Recompile,
    build_engine,
    open_bundle,
)
from geodtr.calibration.activations import measure_activations
from geodtr.export.build import auto as backend_choice
from geodtr.export.build.auto import fastest
from geodtr.export.build.candidates import CANDIDATES
from geodtr.export.build.precisions import Plan
from geodtr.export.calibration_pool import pool_of
from geodtr.export.timing import Timing
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.machine import Machine
from geodtr.runtime.manifest import (
    BackendChoiceEntry,
    BackendTrialEntry,
    read_manifest,
    write_manifest,
)
from geodtr.runtime.names import BACKENDS, BRANCHES, Backend
from geodtr.runtime.progress import Track, untracked

T = TypeVar("T")
Cli = Callable[..., Outcome]
ON_CPU: tuple[Backend, ...] = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def chosen(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An int8 bundle of the trained model, chosen by speed."""
    out = tmp_path_factory.mktemp("chosen") / "bundle"
    return build_fastest(trained.onnx.path, out, Quantized(Calibration(pool_of(trained.train_set))), speed_batch=4)


def build_fastest(source: Path, out: Path, plan: Plan, *, track: Track = untracked, **more: Any) -> Bundle:
    return build_engine(BuildRequest(source, out, FastestBackend(), plan, **more), track=track)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few rounds as can show a difference: all six of six."""
    monkeypatch.setattr(backend_choice, "ROUNDS", 6)


def test_every_backend_has_its_speed_or_the_reason_why_it_has_none(chosen: Bundle) -> None:
    choice = choice_of(chosen)
    assert [(trial.name, trial.provider) for trial in choice.trials] == [
        (candidate.backend, candidate.provider) for candidate in CANDIDATES
    ]
    assert {trial.name for trial in choice.trials} == set(BACKENDS)
    assert choice.batch == 4
    for trial in choice.trials:
        timed = trial.runs_by in ON_CPU
        assert (trial.reason is None) == timed
        assert set(trial.speeds) == ({"ground", "aerial", "both"} if timed else set())
        for speed in trial.speeds.values():
            rate, ratio = speed.images_per_second, speed.times_kept
            assert 0 < rate.slowest <= rate.median <= rate.fastest
            assert 0 < ratio.lowest <= ratio.median <= ratio.highest
    reasons = {trial.runs_by: trial.reason or "" for trial in choice.trials}
    assert "TensorRT cannot be used here" in reasons["tensorrt"]
    assert "No GPU" in reasons["onnxruntime cuda"]


def test_the_kept_backend_is_the_fastest_of_the_table_unless_it_is_a_tie(chosen: Bundle) -> None:
    timed = [trial for trial in choice_of(chosen).trials if trial.both is not None]
    kept = kept_of(chosen)
    assert kept.both is not None
    assert kept.both.times_kept.median == 1
    assert not kept.tied
    for trial in timed:
        assert trial.both is not None
        if trial.both.images_per_second.median > kept.both.images_per_second.median:
            assert trial.tied


def test_the_kept_bundle_equals_a_build_for_its_backend_alone(
    trained: Trained, chosen: Bundle, tmp_path: Path, cli: Cli
) -> None:
    backend = chosen.manifest.backend.name
    command = ("build-engine", trained.onnx.path, "--precision", "int8", "--calibration", trained.train_set.name)
    assert cli(*command, "--backend", backend, "--out", tmp_path / "alone").code == 0
    alone = read_manifest(tmp_path / "alone")
    for branch in BRANCHES:
        assert alone.engine(branch).sha256 == chosen.manifest.engine(branch).sha256
    assert {path.name for path in chosen.path.iterdir()} == {path.name for path in (tmp_path / "alone").iterdir()}
    assert {path.name for path in chosen.path.parent.iterdir()} == {chosen.path.name}
    assert alone.backend_choice is None
    assert alone.quantisation == msgspec.structs.replace(
        chosen.manifest.quantisation or pytest.fail("not quantised"),
        calibration=alone.quantisation.calibration if alone.quantisation else pytest.fail("not quantised"),
    )


def test_inspect_and_bench_show_the_table_of_the_manifest(chosen: Bundle, cli: Cli) -> None:
    recorded = json.loads(msgspec.json.encode(choice_of(chosen)))
    assert json.loads(cli("inspect", chosen.path, "--json").out)["backend_choice"] == recorded
    command = ("bench", chosen.path, "--batch", "1,4", "--rounds", 2, "--openings", 0)
    (shown,) = json.loads(cli(*command, "--json").out)["chosen"]
    assert shown["choice"] == recorded
    assert shown["kept"] == chosen.manifest.backend.runs_by
    assert set(shown["today"]) == {"ground", "aerial", "both"}
    (other_batch,) = json.loads(cli(*command[:2], "--batch", 2, *command[4:], "--json").out)["chosen"]
    assert other_batch["today"] == {}
    for printed in (cli("inspect", chosen.path).out, cli(*command).out):
        assert all(f"{name} {version}" in printed for name, version in versions(chosen))
        assert "tensorrt: not timed. TensorRT cannot be used here" in printed


def test_the_table_fits_eighty_columns(chosen: Bundle, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # a pipe has no width
    printed = cli("bench", chosen.path, "--batch", "4", "--rounds", 2, "--openings", 0).out
    start = printed.index("timed when it was built")
    lines = [line for line in printed[start:].splitlines() if "not timed." not in line and "as fast:" not in line]
    assert max(map(len, lines)) <= 80
    assert "today" in printed
    assert "…" not in printed


@pytest.mark.parametrize("slow", ON_CPU)
def test_a_slower_backend_is_never_kept(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: Backend
) -> None:
    delay(monkeypatch, slow)
    built = build_fastest(trained.onnx.path, tmp_path / "b", Float("fp16"))
    assert built.manifest.backend.name != slow
    (late,) = [trial for trial in choice_of(built).trials if trial.runs_by == slow]
    assert late.both is not None
    assert late.both.times_kept.highest < 1
    assert not late.tied


def test_a_backend_whose_engines_are_wrong_is_not_kept_and_named(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    stand_in(monkeypatch, {"onnxruntime": Faulty})
    result = cli("build-engine", trained.onnx.path, "--backend", "auto", "--out", tmp_path / "b")
    assert result.code == 0, result.err
    built = open_bundle(tmp_path / "b")
    assert built.manifest.backend.name == "openvino"
    reasons = {trial.runs_by: trial for trial in choice_of(built).trials}
    assert "aerial engine does not match its graph" in (reasons["onnxruntime"].reason or "")
    assert reasons["onnxruntime"].version
    assert "onnxruntime: not timed. The compiled aerial engine does not match" in result.out


def test_what_a_vendors_library_raises_is_a_reason_like_another(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, {"openvino": Crashing})
    built = build_fastest(trained.onnx.path, tmp_path / "b", Float("fp32"))
    assert built.manifest.backend.name == "onnxruntime"
    assert "RuntimeError: out of luck" in [trial.reason for trial in choice_of(built).trials]


def test_if_every_backend_fails_each_reason_is_reported_and_nothing_is_left(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    stand_in(monkeypatch, {"onnxruntime": Faulty, "openvino": Crashing})
    message = refused("build-engine", trained.onnx.path, "--backend", "auto", "--out", tmp_path / "b")
    assert "No backend is left" in message
    assert "onnxruntime: The compiled aerial engine does not match its graph" in " ".join(message.split())
    assert "openvino: RuntimeError: out of luck" in message
    assert "tensorrt: TensorRT cannot be used here" in message


def test_one_backend_is_enough(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    result = cli("build-engine", trained.onnx.path, "--backend", "auto", "--out", tmp_path / "b")
    assert result.code == 0, result.err
    built = open_bundle(tmp_path / "b")
    assert built.manifest.backend.name == "onnxruntime"
    assert kept_of(built).both is not None
    assert "openvino: not timed. OpenVINO cannot be used here" in result.out


def test_a_backend_that_has_not_the_precision_is_named(trained: Trained, tmp_path: Path) -> None:
    plan = Quantized(Calibration(pool_of(trained.train_set)), "fp8", keep_cosine=0.9)
    built = build_fastest(trained.onnx.path, tmp_path / "b", plan)
    assert built.manifest.backend.name == "onnxruntime"
    assert "OpenVINO computes no fp8" in "".join(trial.reason or "" for trial in choice_of(built).trials)


def test_backends_of_two_dialects_are_calibrated_once_and_bars_name_them(
    model: Model, rtx_machine: RtxMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del rtx_machine
    calibrations, bars = list[str](), list[str]()

    def counted(graph: Path, *arguments: Any, **more: Any) -> Any:
        calibrations.append(graph.stem)
        return measure_activations(graph, *arguments, **more)

    def track(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
        del total
        bars.append(description)
        return iter(items)

    monkeypatch.setattr("geodtr.calibration.ranges.measure_activations", counted)
    plan = Quantized(Calibration(pool_of(model.images)), keep_cosine=0.5)
    out = tmp_path / "b"
    built = build_fastest(model.onnx.path, out, plan, track=track)
    timed = {trial.runs_by for trial in choice_of(built).trials if trial.both is not None}
    assert timed == {"onnxruntime", "openvino", "tensorrt-rtx"}
    assert calibrations == ["ground", "aerial"]
    assert {f"{name}: Building the ground engine" for name in ON_CPU} < set(bars)
    assert any(bar.startswith("tensorrt-rtx: Building the aerial engine") for bar in bars)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--provider", "cpu"), "--provider"),
        (("--max-batch", "4", "--strip"), "--max-batch, --strip"),
        (("--precision", "auto", "--calibration", "SPEC", "--recall-on", "SPEC"), "does not search for blocks"),
        (("--precision", "int8"), "--calibration SPEC"),
        (("--require-faster",), "--require-faster is not for fp32"),
    ],
)
def test_what_auto_does_not_do_is_refused_by_name(
    trained: Trained, tmp_path: Path, refused: Callable[..., str], options: Sequence[str], named: str
) -> None:
    command = [trained.test_set.name if word == "SPEC" else word for word in options]
    message = refused("build-engine", trained.onnx.path, "--backend", "auto", *command, "--out", tmp_path / "b")
    assert named in " ".join(message.split())


def test_the_library_refuses_the_same_as_the_command(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not search for blocks"):
        build_fastest(trained.onnx.path, tmp_path / "b", Auto(Calibration("SPEC"), "SPEC"))


def test_an_interrupt_leaves_nothing(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backend_choice, "time_pairs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_fastest(trained.onnx.path, tmp_path / "b", Float("fp32"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("seconds", "code"), [(0.002, 1), (0.0005, 0)])
def test_with_require_faster_the_kept_backend_must_be_faster_than_its_own_fp32(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli, seconds: float, code: int
) -> None:
    """Only the gate's timing is replaced: a call takes `seconds` with the engine and 0.001 with the float32 one."""
    timings = [Timing(1, ((0.001,), (0.001,))), Timing(1, ((seconds,), (seconds,)))]
    pairs = [dict.fromkeys(("ground", "aerial", "both"), timing) for timing in timings]
    monkeypatch.setattr("geodtr.export.speed.time_pairs", lambda *_args, **_kwargs: pairs)
    command = ("build-engine", trained.onnx.path, "--backend", "auto", "--precision", "fp16", "--require-faster")
    result = cli(*command, "--out", tmp_path / "b")
    assert result.code == code, result.err
    if code:
        assert "not faster than fp32" in result.err
        assert list(tmp_path.iterdir()) == []
    else:
        manifest = read_manifest(tmp_path / "b")
        assert manifest.speed is not None
        assert manifest.speed.both.median == 2
        assert manifest.backend_choice is not None


def test_graphs_that_are_there_are_compiled_by_every_backend_of_their_dialect(
    chosen: Bundle, tmp_path: Path, cli: Cli
) -> None:
    again = tmp_path / "again"
    result = cli("build-engine", chosen.path, "--backend", "auto", "--precision", "same", "--out", again)
    assert result.code == 0, result.err
    manifest = read_manifest(again)
    for branch in BRANCHES:
        assert manifest.engine(branch).sha256 == chosen.manifest.engine(branch).sha256
    assert manifest.quantisation == chosen.manifest.quantisation
    assert {trial.runs_by for trial in choice_of(open_bundle(again)).trials if trial.both} == set(ON_CPU)


def test_graphs_of_another_dialect_are_not_tried(chosen: Bundle, tmp_path: Path, cli: Cli) -> None:
    entry = chosen.manifest.quantisation
    assert entry is not None
    command = ("build-engine", chosen.path, "--backend", "auto", "--precision", "same", "--dialect", "tensorrt")
    result = cli(*command, "--out", tmp_path / "b")
    assert result.code == 2
    assert f"quantised as {entry.dialect}" in " ".join(result.err.split())


def test_a_bundle_compiled_for_one_backend_no_longer_records_a_choice(chosen: Bundle, tmp_path: Path) -> None:
    entry = chosen.manifest.quantisation
    assert entry is not None
    request = BuildRequest(chosen.path, tmp_path / "b", plan=Recompile(entry.dialect))
    assert build_engine(request).manifest.backend_choice is None


def test_doctor_names_the_kept_backend_and_on_another_machine_how_to_choose_again(
    chosen: Bundle, tmp_path: Path, cli: Cli
) -> None:
    bundle = shutil.copytree(chosen.path, tmp_path / "bundle")
    assert "chosen by speed among onnxruntime, openvino on this machine" in " ".join(cli("doctor", bundle).out.split())
    (bundle / "ground.onnx").unlink()
    findings = json.loads(cli("doctor", bundle, "--json").out)["findings"]
    (damaged,) = [finding for finding in findings if finding["failed"]]
    assert f"--backend {chosen.manifest.backend.name} --precision int8" in damaged["remedy"]
    shutil.copy(chosen.path / "ground.onnx", bundle)
    elsewhere = msgspec.structs.replace(choice_of(chosen), machine=Machine(architecture="riscv64"))
    write_manifest(bundle, msgspec.structs.replace(chosen.manifest, backend_choice=elsewhere))
    report = cli("doctor", bundle, "--json")
    assert report.code == 0, report.out
    (note,) = [each for each in json.loads(report.out)["findings"] if each["what"] == "backend choice"]
    assert "another backend may be faster here" in note["found"]
    assert note["remedy"] in cli("bench", bundle, "--batch", 4, "--rounds", 2, "--openings", 0).out
    program, *arguments = shlex.split(note["remedy"])
    assert program == "geodtr-export"
    assert cli(*arguments).code == 0
    rebuilt = open_bundle(Path(arguments[-1]))
    assert choice_of(rebuilt).machine == choice_of(chosen).machine


def test_a_manifest_from_before_has_no_choice_and_is_read(trained: Trained, tmp_path: Path) -> None:
    bundle = shutil.copytree(trained.bundles["fp32"].path, tmp_path / "b")
    written = json.loads((bundle / "manifest.json").read_text())
    del written["backend_choice"]
    (bundle / "manifest.json").write_text(json.dumps(written))
    assert open_bundle(bundle).manifest == open_bundle(trained.bundles["fp32"].path).manifest


@pytest.mark.parametrize(("won", "kept"), [(0, 0), (10, 0), (14, 0), (15, 1), (20, 1)])
def test_a_difference_within_chance_keeps_the_first(won: int, kept: int) -> None:
    """The second backend is twice as fast in `won` of 20 rounds, and half as fast in the others."""
    first = Timing(1, ((1.0,),) * 20)
    second = Timing(1, ((0.5,),) * won + ((2.0,),) * (20 - won))
    assert fastest([first, second]) == kept
    assert fastest([second, first]) == (1 if won <= 5 else 0)


def test_of_three_the_first_that_none_beats_is_kept() -> None:
    slow, even, fast = (Timing(1, ((seconds,),) * 20) for seconds in (2.0, 1.0, 1.0))
    assert fastest([slow, even, fast]) == 1


def choice_of(bundle: Bundle) -> BackendChoiceEntry:
    choice = bundle.manifest.backend_choice
    assert choice is not None
    return choice


def kept_of(bundle: Bundle) -> BackendTrialEntry:
    (kept,) = [trial for trial in choice_of(bundle).trials if trial.runs_by == bundle.manifest.backend.runs_by]
    return kept


def versions(bundle: Bundle) -> list[tuple[str, str | None]]:
    return [(trial.runs_by, trial.version) for trial in choice_of(bundle).trials if trial.both is not None]
