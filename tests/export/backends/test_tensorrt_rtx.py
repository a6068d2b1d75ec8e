"""TensorRT-RTX: NVIDIA's own objects build plans, without a GPU; the fakes of rtx_on_fakes.py run them."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_cuda
import fake_tensorrt
import msgspec
import numpy as np
import pytest
import rtx_on_fakes
from checkout import SUPPORT
from conftest import Outcome
from rtx_on_fakes import RtxMachine
from tensorrt_on_fakes import Model

from geodtr import BuildRequest, Bundle, Float, TensorRtRtxOptions, build_engine, open_bundle
from geodtr.export.build.candidates import find_able
from geodtr.runtime.build_command import unread_command
from geodtr.runtime.engines.tensorrt import library as tensorrt_library
from geodtr.runtime.engines.tensorrt.compatibility import mismatches
from geodtr.runtime.engines.tensorrt.cuda import open_cuda
from geodtr.runtime.engines.tensorrt.library import RTX, Library
from geodtr.runtime.engines.tensorrt.machine_cache import MachineCache
from geodtr.runtime.errors import BundleError
from geodtr.runtime.installation import install_hint
from geodtr.runtime.machine import Machine
from geodtr.runtime.manifest import BackendEntry, TensorRtEntry, read_manifest
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.spec import Images

Cli = Callable[..., Outcome]
pytestmark = pytest.mark.usefixtures("nvidia")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide a driver that this machine may have."""
    fake_cuda.fake_reset().error = fake_cuda.cudaError_t(35)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake_cuda)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.setattr("geodtr.runtime.engines.tensorrt.cuda.this_gpu", lambda: None)


def rtx_bundle(model: Model, out: Path, **options: Any) -> Bundle:
    return build_engine(BuildRequest(model.onnx.path, out, TensorRtRtxOptions(**options), Float("fp16")))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for bundles that the first test that wants one builds; the vendor's builder takes two seconds."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def never_run(model: Model, kept: Path, tmp_path: Path, no_gpu: None) -> Bundle:
    """Built on a machine without a GPU."""
    del no_gpu
    if not (kept / "never-run").exists():
        rtx_bundle(model, kept / "never-run")
    return open_bundle(Path(shutil.copytree(kept / "never-run", tmp_path / "b")))


@pytest.fixture
def bundle(model: Model, kept: Path, tmp_path: Path, rtx_machine: RtxMachine) -> Bundle:
    """Built on the machine, for its own GPU."""
    del rtx_machine
    if not (kept / "own" / "b").exists():
        rtx_bundle(model, kept / "own" / "b", compute_capabilities=("89",))
    assert [entry.name for entry in (kept / "own").iterdir()] == ["b"]
    return open_bundle(Path(shutil.copytree(kept / "own" / "b", tmp_path / "b")))


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("precision", ["fp32", "int8", "fp8"])
def test_plans_are_built_without_a_gpu_and_the_bundle_records_that_they_never_ran(
    model: Model, tmp_path: Path, cli: Cli, precision: str
) -> None:
    command: list[object] = ["build-engine", model.onnx.path, "--backend", "tensorrt-rtx", "--precision", precision]
    command += ["--compute-capability", "8.9", "--compute-capability", 120, "--compute-capability", 89]
    command += ["--calibration", model.images.name, "--images", 8, "--keep-cosine", 0.5] * (precision != "fp32")
    built = cli(*command, "--out", tmp_path / "b")
    assert built.code == 0, built.err
    assert "Building the ground engine: Building engine: 100 of 100" in built.err
    backend = read_manifest(tmp_path / "b").backend
    assert (backend.name, backend.version, backend.executed) == ("tensorrt-rtx", RTX.trt.__version__, False)
    assert backend.tensorrt is not None
    assert backend.tensorrt.compute_capabilities == ("8.9", "12.0")
    for branch in BRANCHES:
        assert (tmp_path / "b" / f"{branch}.rtx").stat().st_size > 10_000
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b"]
    for text in (built.err, cli("inspect", tmp_path / "b").out, cli("doctor", tmp_path / "b").out):
        words = " ".join(text.split())
        assert "compute capability 8.9, 12.0; built, not executed: without such a GPU" in words


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("sent", ["SIGINT", "SIGKILL"])
def test_a_build_that_is_interrupted_or_killed_leaves_no_half_of_a_bundle_and_the_next_one_works(
    model: Model, tmp_path: Path, cli: Cli, sent: str
) -> None:
    script = SUPPORT / "interrupted_build.py"
    command = [sys.executable, str(script), str(model.onnx.path), str(tmp_path / "b"), sent]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if sent == "SIGINT":
        assert done.returncode == 0, done.stderr
        assert 3 <= int(done.stdout) < 10
        assert list(tmp_path.iterdir()) == []
    else:
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert list(tmp_path.glob(".b.unfinished-*/ground.rtx")), "it was killed with one of two plans written"
        assert not (tmp_path / "b").exists()
    again = cli("build-engine", model.onnx.path, "--backend", "tensorrt-rtx", "--out", tmp_path / "b")
    assert again.code == 0, again.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]
    assert cli("inspect", tmp_path / "b").code == 0


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("embed", ("IMAGE", "--branch", "ground")), ("evaluate", ("--data", "SET")), ("bench", ())],
)
def test_an_incompatible_gpu_is_reported_once_with_the_next_command(
    model: Model, never_run: Bundle, tmp_path: Path, cli: Cli, command: str, arguments: tuple[str, ...]
) -> None:
    bundle = never_run
    places = {"SET": model.images.name, "IMAGE": str(next(Path(model.images.name[6:]).rglob("*.png")))}
    out = ["--out", tmp_path / "rows.npy"] * (command == "embed")
    stopped = cli(command, bundle.path, *(places.get(word, word) for word in arguments), *out)
    assert stopped.code == 2, stopped.err
    assert stopped.err.count("none answers here") == 1
    assert not (tmp_path / "rows.npy").exists()
    assert cli("doctor", bundle.path).code == 1
    program, *again = shlex.split(stopped.err.rpartition("To build it again: ")[2])
    assert program == "geodtr-export"
    assert cli(*again).code == 0
    assert open_bundle(Path(f"{bundle.path}-rebuilt")).manifest.backend.name == "onnxruntime"


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--compute-capability", "90"), "builds for 7.5, 8.0, 8.6, 8.9, 12.0"),
        (("--compute-capability", "Ada"), "name one like 89 or 8.9"),
        (("--compute-capability", "75"), "computes fp32 from 8.0 on"),
        (("--compute-capability", "86", "--precision", "fp8", "--calibration", "SET"), "computes fp8 from 8.9 on"),
        (("--strip",), "this machine has none"),
        (("--refittable",), "this machine has none"),
        (("--refit-from", "x"), "this machine has none"),
        (("--version-compatible",), "--version-compatible: for --backend tensorrt, not tensorrt-rtx"),
        (("--dla", "0"), "--dla: for --backend tensorrt, not tensorrt-rtx"),
        (("--hardware", "ampere-or-newer"), "--compute-capability names the GPUs that may run the engine"),
        (("--require-faster", "--precision", "fp16"), "do not run on this machine"),
        (("--precision", "auto", "--calibration", "SET", "--recall-on", "SET"), "do not run on this machine"),
        (("--dialect", "cpu-8bit", "--precision", "int8", "--calibration", "SET"), "leave --dialect out"),
    ],
)
def test_impossible_builds_are_refused_before_any_work(
    model: Model, tmp_path: Path, refused: Callable[..., str], options: tuple[str, ...], named: str
) -> None:
    command = [model.images.name if word == "SET" else word for word in options]
    out = tmp_path / "b"
    assert named in refused("build-engine", model.onnx.path, "--backend", "tensorrt-rtx", *command, "--out", out)
    assert list(tmp_path.iterdir()) == []


def test_a_compute_capability_is_nothing_for_tensorrt(
    model: Model, tmp_path: Path, refused: Callable[..., str]
) -> None:
    command = ("build-engine", model.onnx.path, "--backend", "tensorrt", "--compute-capability", 89)
    message = refused(*command, "--out", tmp_path / "b")
    assert "--compute-capability: for --backend tensorrt-rtx, not tensorrt" in message


@pytest.mark.parametrize(
    ("modules", "platform", "named"),
    [
        (("no_such_module",), ("Linux", "x86_64"), install_hint("tensorrt-rtx")),
        (("no_such_module",), ("Darwin", "arm64"), "wheels of it for Linux on x86_64 and aarch64, and this is Darwin"),
        (("without_libraries",), ("Linux", "x86_64"), "libtensorrt_rtx.so.1: cannot open"),
        (("older",), ("Linux", "x86_64"), "TensorRT-RTX 1.4.0 is installed; 1.7 to 1.x are known here"),
    ],
)
def test_a_missing_or_broken_installation_is_named(
    model: Model,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    refused: Callable[..., str],
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    modules: tuple[str],
    platform: tuple[str, str],
    named: str,
) -> None:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "without_libraries.py").write_text(
        "raise ImportError('libtensorrt_rtx.so.1: cannot open shared object file')"
    )
    (folder / "older.py").write_text("__version__ = '1.4.0'")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(tensorrt_library, "_platform", lambda: platform)
    monkeypatch.setattr(Library, "modules", modules)
    command = ("build-engine", model.onnx.path, "--backend", "tensorrt-rtx", "--out", tmp_path / "b")
    assert named in refused(*command)
    assert not (tmp_path / "b").exists()
    rows = {entry["what"]: entry for entry in json.loads(cli("doctor", "--json").out)["findings"]}["tensorrt-rtx"]
    assert named in rows["found"] + (rows["remedy"] or "")


@pytest.mark.usefixtures("no_gpu")
def test_auto_does_not_count_it_as_runnable_without_a_gpu() -> None:
    able, entries = find_able("fp16", None, None, print)
    assert "tensorrt-rtx" not in [each.candidate.backend for each in able]
    (reason,) = [entry.reason for entry in entries.values() if entry.name == "tensorrt-rtx"]
    assert reason is not None and "runs on another GPU" in reason


def test_auto_takes_it_where_its_gpu_is(rtx_machine: RtxMachine) -> None:
    able, _ = find_able("fp16", None, None, print)
    assert "tensorrt-rtx" in [each.candidate.backend for each in able]
    rtx_machine.gpu.capability = (9, 0)
    able, _ = find_able("fp16", None, None, print)
    assert "tensorrt-rtx" not in [each.candidate.backend for each in able]


def test_where_its_gpu_is_plans_are_run_and_looked_into(
    model: Model, bundle: Bundle, tmp_path: Path, images: Images, rtx_machine: RtxMachine
) -> None:
    assert bundle.manifest.backend.executed
    assert bundle.manifest.ground.compiled is not None
    assert bundle.manifest.ground.compiled.layers["fp16"] > 0
    rows = bundle.embedder("ground").embed(images)
    graph = build_engine(BuildRequest(model.onnx.path, tmp_path / "c", plan=Float("fp16")))
    np.testing.assert_allclose(rows, graph.embedder("ground").embed(images), atol=1e-3)
    assert bundle.layer_times("ground", images[:2], calls=2)
    assert rtx_machine.gpu.calls["launch"] > 0


@pytest.mark.parametrize("damage", [None, "cut", "another GPU's", "refused"])
def test_kernels_compiled_on_loading_are_cached_in_the_bundle(
    bundle: Bundle, tmp_path: Path, images: Images, rtx_machine: RtxMachine, damage: str | None
) -> None:
    for branch in BRANCHES:
        bundle.embedder(branch).embed(np.zeros_like(images[:2]))
    caches = sorted(tmp_path.glob("*.rtx-cache"))
    assert [cache.name.partition("-")[0] for cache in caches] == ["aerial", "ground"]
    before, content = rtx_machine.compiled, caches[1].read_bytes()
    if damage == "cut":
        caches[1].write_bytes(content[:-1])
    elif damage == "another GPU's":
        rtx_machine.gpu.driver = 13000
    elif damage == "refused":
        MachineCache(caches[1], open_cuda().machine, RTX.trt.__version__).write(b"of other kernels")
    bundle.embedder("ground").embed(images)
    assert rtx_machine.compiled == before + (damage is not None)
    bundle.embedder("ground").embed(images)
    assert rtx_machine.compiled == before + (damage is not None)
    assert open_bundle(bundle.path).manifest == bundle.manifest


def test_a_cache_that_cannot_be_written_only_costs_time(
    bundle: Bundle, tmp_path: Path, images: Images, rtx_machine: RtxMachine
) -> None:
    before = rtx_machine.compiled
    bundle.embedder("ground").embed(images)
    (cache,) = tmp_path.glob("ground-*.rtx-cache")
    cache.unlink()
    cache.mkdir()
    assert len(bundle.embedder("ground").embed(images)) == len(images)
    assert rtx_machine.compiled == before + 2


@pytest.mark.parametrize(
    ("capabilities", "version", "here", "runs"),
    [
        (("8.6", "8.9"), "1.7.1", "8.9", True),
        (("8.6", "8.9"), "1.7.1", "12.0", False),
        (("8.6", "8.9"), "1.7.1", "9.0", False),
        (("8.6", "8.9"), "1.8.0", "8.9", False),
    ],
)
def test_which_plans_run_where(capabilities: tuple[str, ...], version: str, here: str, runs: bool) -> None:
    how = TensorRtEntry(min_batch=1, opt_batch=1, max_batch=1, compute_capabilities=capabilities)
    backend = BackendEntry(
        name="tensorrt-rtx", version="1.7.1", machine=Machine(architecture="x86_64"), tensorrt=how, executed=False
    )
    gpu = Machine(architecture="aarch64", gpu="RTX", compute_capability=here, driver="13.0")
    assert (mismatches(backend, version, gpu) == []) == runs


def test_a_plan_for_other_gpus_is_refused_before_it_is_loaded_with_the_command_that_rebuilds_it(
    model: Model, tmp_path: Path, cli: Cli, rtx_machine: RtxMachine
) -> None:
    bundle = rtx_bundle(model, tmp_path / "b", compute_capabilities=("8.9", "12.0"), max_batch=8)
    rtx_machine.gpu.capability = (8, 6)
    with pytest.raises(BundleError, match=r"built for GPUs of compute capability 8\.9, 12\.0, this one is") as refusal:
        bundle.embedder("ground")
    command = str(refusal.value).rpartition("To build it again: ")[2]
    assert "--compute-capability 8.9 --compute-capability 12.0" in command
    assert cli("doctor", bundle.path).code == 1
    built = cli(*shlex.split(command)[1:])
    assert built.code == 0, built.err
    rebuilt = read_manifest(Path(f"{bundle.path}-rebuilt")).backend
    assert rebuilt.tensorrt == bundle.manifest.backend.tensorrt
    assert not rebuilt.executed


def test_manifests_from_before_are_read(model: Model, tmp_path: Path) -> None:
    held = json.loads((model.onnx.path / "manifest.json").read_text())
    held["backend"] = {
        "name": "tensorrt",
        "version": "10.3.0",
        "machine": {"architecture": "x86_64"},
        "tensorrt": {"min_batch": 1, "opt_batch": 8, "max_batch": 32},
    }
    (tmp_path / "manifest.json").write_bytes(msgspec.json.encode(held))
    backend = read_manifest(tmp_path).backend
    assert backend.executed and backend.targets is None


def test_the_backend_of_a_bundle_without_a_readable_manifest_is_known_by_its_plans(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{ not json")
    (tmp_path / "ground.rtx").touch()
    assert "build-engine CKPT --backend tensorrt-rtx --precision PRECISION" in unread_command(tmp_path)


def test_the_fakes_match_the_vendors_module(nvidia: Any) -> None:
    fakes = {name: each for name, each in vars(fake_tensorrt).items() if isinstance(each, type)}
    fakes = {name: each for name, each in fakes.items() if each.__module__ == "fake_tensorrt" and "Fake" not in name}
    fakes |= {"IRuntimeConfig": rtx_on_fakes.RuntimeConfig, "IRuntimeCache": rtx_on_fakes.RuntimeCache}
    shown = [(name, member) for name, each in fakes.items() for member in vars(each) if not member.startswith("_")]
    own = {("IRuntimeConfig", "cache"), ("IRuntimeConfig", "strategy"), ("IRuntimeCache", "content")}
    missing = [f"{name}.{member}" for name, member in shown if not hasattr(getattr(nvidia, name), member)]
    assert set(missing) == {f"{name}.{member}" for name, member in own}
