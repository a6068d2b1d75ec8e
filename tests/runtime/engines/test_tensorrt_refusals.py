"""What the TensorRT backend refuses, and its messages, with NVIDIA's objects and the fakes of tensorrt_on_fakes.py."""

import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_cuda
import fake_tensorrt
import msgspec
import numpy as np
import planted_faults as planted
import pytest
from conftest import Outcome
from tensorrt_on_fakes import Machine, Model

from geodtr import Bundle, open_bundle
from geodtr.runtime.engines.tensorrt.compatibility import mismatches
from geodtr.runtime.engines.tensorrt.cuda import open_cuda
from geodtr.runtime.engines.tensorrt.runner import HOST_CODE
from geodtr.runtime.errors import BundleError, ConfigError, MissingDependency
from geodtr.runtime.manifest import BackendEntry, TensorRtEntry
from geodtr.runtime.spec import Images


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": b"NVIDIA Orin"}, "built for Fake GPU"),
        ({"capability": (8, 9)}, "8.9"),
        ({"version": "10.16.1"}, "built by TensorRT 10.3.0, here is 10.16.1"),
    ],
)
def test_a_plan_of_another_machine_is_refused_with_the_command_that_rebuilds_it_here(
    build: Callable[..., Bundle],
    machine: Machine,
    cli: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    named: str,
) -> None:
    bundle = build("fp16", max_batch=8, workspace=64, refittable=True)
    for name, value in change.items():
        if name == "version":
            machine.upgrade(value)
        else:
            setattr(machine.gpu, name, value)
    touched = list[bytes]()
    with monkeypatch.context() as watched, pytest.raises(BundleError, match=named) as refusal:
        watched.setattr(fake_tensorrt.Runtime, "deserialize_cuda_engine", lambda _, plan: touched.append(plan))
        bundle.embedder("ground")
    assert touched == []
    command = str(refusal.value).rpartition("To build it again: ")[2]
    result = cli(*shlex.split(command)[1:])
    assert result.code == 0, result.err
    rebuilt = open_bundle(Path(f"{bundle.path}-rebuilt"))
    assert rebuilt.manifest.ground.sha256 == bundle.manifest.ground.sha256
    assert rebuilt.manifest.backend.tensorrt == bundle.manifest.backend.tensorrt
    rebuilt.embedder("ground")


@pytest.mark.parametrize(
    ("how", "built", "here", "runs"),
    [
        ({}, ("10.3.0", "Orin", "8.7"), ("10.3.0", "Orin", "8.7"), True),
        ({}, ("10.3.0", "Orin", "8.7"), ("10.3.1", "Orin", "8.7"), False),
        ({}, ("10.3.0", "RTX 4090", "8.9"), ("10.3.0", "RTX 4070", "8.9"), False),
        ({"hardware": "same-capability"}, ("10.9.0", "RTX 4090", "8.9"), ("10.9.0", "RTX 4070", "8.9"), True),
        ({"hardware": "same-capability"}, ("10.9.0", "RTX 4090", "8.9"), ("10.9.0", "H100", "9.0"), False),
        ({"hardware": "ampere-or-newer"}, ("10.3.0", "A100", "8.0"), ("10.3.0", "B200", "10.0"), True),
        ({"hardware": "ampere-or-newer"}, ("10.3.0", "A100", "8.0"), ("10.3.0", "T4", "7.5"), False),
        ({"version_compatible": True}, ("10.3.0", "A100", "8.0"), ("10.16.1", "A100", "8.0"), True),
        ({"version_compatible": True}, ("10.16.1", "A100", "8.0"), ("10.3.0", "A100", "8.0"), False),
        ({"version_compatible": True}, ("10.16.1", "A100", "8.0"), ("11.4.0", "A100", "8.0"), False),
    ],
)
def test_which_plans_run_where(
    machine: Machine, how: dict[str, Any], built: tuple[str, str, str], here: tuple[str, str, str], runs: bool
) -> None:
    del machine
    template = open_cuda().machine
    machines = [
        msgspec.structs.replace(template, gpu=gpu, compute_capability=capability)
        for _, gpu, capability in (built, here)
    ]
    entry = TensorRtEntry(min_batch=1, opt_batch=1, max_batch=1, **how)
    backend = BackendEntry(name="tensorrt", version=built[0], machine=machines[0], tensorrt=entry)
    assert (mismatches(backend, here[0], machines[1]) == []) == runs


def test_program_code_in_a_plan_runs_only_with_permission(
    build: Callable[..., Bundle], images: Images, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = build(version_compatible=True)
    machine.upgrade("10.16.1.11")
    with pytest.raises(BundleError, match=f"{HOST_CODE}=1"):
        bundle.embedder("ground")
    monkeypatch.setenv(HOST_CODE, "1")
    np.testing.assert_allclose(np.linalg.norm(bundle.embedder("ground").embed(images), axis=1), 1, atol=1e-4)


def test_a_plan_with_other_batch_sizes_than_the_manifest_is_refused(build: Callable[..., Bundle]) -> None:
    bundle = build()
    backend = bundle.manifest.backend
    assert backend.tensorrt is not None
    wider = msgspec.structs.replace(backend, tensorrt=msgspec.structs.replace(backend.tensorrt, max_batch=64))
    with pytest.raises(BundleError, match="shapes differ"):
        replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, backend=wider)).embedder("ground")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--min-batch", 4, "--max-batch", 2), "--min-batch 4, --opt-batch 4 and --max-batch 2 must rise"),
        (("--version-compatible", "--strip"), "--version-compatible excludes --strip"),
        (("--dla", 0, "--max-batch", 8, "--opt-batch", 4, "--precision", "fp16"), "one batch size"),
        (("--dla", 0), "fp16 and int8 only"),
        (("--dla", 0, "--precision", "fp16"), "11.4 on an AGX Orin"),
        (("--hardware", "same-capability"), "cannot build for same-capability"),
        (("--refit-from", "x", "--strip"), "leave the other options"),
        (("--dialect", "cpu-8bit", "--precision", "int8", "--calibration", "SPEC"), "leave --dialect out"),
        (("--provider", "cuda"), "--provider: for --backend onnxruntime, not tensorrt"),
    ],
)
def test_impossible_options_are_refused_before_any_work(
    model: Model, machine: Machine, tmp_path: Path, refused: Callable[..., str], options: Any, named: str
) -> None:
    assert named in refused("build-engine", model.onnx.path, "--backend", "tensorrt", *options, "--out", tmp_path / "b")
    assert machine.trt.configs == []


def test_options_of_tensorrt_are_refused_by_other_backends(
    model: Model, tmp_path: Path, refused: Callable[..., str]
) -> None:
    message = refused("build-engine", model.onnx.path, "--max-batch", 4, "--dla", 0, "--out", tmp_path / "b")
    assert "--max-batch, --dla: for --backend tensorrt or tensorrt-rtx, not onnxruntime" in message


def test_a_dla_gets_one_batch_size_and_the_gpu_the_rest(
    build: Callable[..., Bundle], machine: Machine, nvidia: Any
) -> None:
    machine.upgrade("11.4.0.106")
    machine.trt.dla_cores = 2
    bundle = build("fp16", dla_core=1, opt_batch=4)
    config = machine.trt.configs[0]
    assert (config.DLA_core, config.default_device_type) == (1, nvidia.DeviceType.DLA)
    assert config.get_flag(nvidia.BuilderFlag.GPU_FALLBACK)
    entry = bundle.manifest.backend.tensorrt
    assert entry is not None
    assert (entry.min_batch, entry.opt_batch, entry.max_batch, entry.dla_core) == (4, 4, 4, 1)
    with pytest.raises(ConfigError, match="this machine has 2"):
        build("fp16", "other", dla_core=2)


def test_a_dla_has_no_fp32_to_be_faster_than(
    model: Model, machine: Machine, tmp_path: Path, refused: Callable[..., str]
) -> None:
    machine.upgrade("11.4.0.106")
    machine.trt.dla_cores = 2
    command = ("build-engine", model.onnx.path, "--backend", "tensorrt", "--dla", 0, "--precision", "fp16")
    assert "--require-faster compares with fp32" in refused(*command, "--require-faster", "--out", tmp_path / "b")
    assert machine.trt.configs == []


@pytest.mark.parametrize(("error", "named"), [(35, "there is no driver, or it is older"), (100, "sees no device")])
def test_a_machine_without_a_gpu_is_refused(
    model: Model, machine: Machine, tmp_path: Path, refused: Callable[..., str], error: int, named: str
) -> None:
    machine.gpu.error = fake_cuda.cudaError_t(error)
    message = refused("build-engine", model.onnx.path, "--backend", "tensorrt", "--out", tmp_path / "b")
    assert named in message
    assert "--backend onnxruntime" in message


def test_the_installed_packages_report_that_there_is_no_gpu() -> None:
    """The real cuda-bindings, where it is installed (PyTorch brings it), on a machine without a driver."""
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    with pytest.raises(MissingDependency, match="No NVIDIA GPU can be used"):
        open_cuda()


@pytest.mark.parametrize(("version", "named"), [(None, "cannot be used here"), ("8.6.1", "10.3 to 11.x")])
def test_a_missing_or_old_tensorrt_is_named(
    model: Model,
    machine: Machine,
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    version: str | None,
    named: str,
) -> None:
    if version is None:
        monkeypatch.setitem(sys.modules, "tensorrt", None)
    else:
        machine.upgrade(version)
    message = refused("build-engine", model.onnx.path, "--backend", "tensorrt", "--out", tmp_path / "b")
    assert named in message
    assert "pip install" in message


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("precision", ["fp16", "same"])
def test_old_graphs_are_refused_before_any_work_with_the_command_that_exports_them_again(
    model: Model, refused: Callable[..., str], tmp_path: Path, precision: str
) -> None:
    old = Path(shutil.copytree(model.onnx.path, tmp_path / "old"))
    planted.old_pixel_order(old)
    message = refused("build-engine", old, "--backend", "tensorrt", "--precision", precision, "--out", tmp_path / "new")
    assert "Transpose on uint8, which TensorRT refuses" in message
    assert "To build it again: geodtr-export export CKPT" in message
