"""`doctor` finds every fault that prevents a bundle from running, without loading an engine; opening finds the same."""

import json
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import planted_faults as planted
import pytest
from conftest import Outcome, Trained

from geodtr import __version__, open_bundle
from geodtr.runtime import machine, preflight
from geodtr.runtime.build_command import unread_command
from geodtr.runtime.engines import onnxruntime
from geodtr.runtime.errors import BundleError
from geodtr.runtime.installation import install_hint
from geodtr.runtime.manifest import read_manifest, write_manifest
from geodtr.runtime.names import Precision

Cli = Callable[..., Outcome]

DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return flags != 0; }
int cuDeviceGet(int *device, int number) { *device = 7; return number != 0; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Orin", size); return device != 7; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
    return device != 7;
}
"""


@pytest.fixture
def copy_of(trained: Trained, tmp_path: Path) -> Callable[[Precision], Path]:
    """A bundle that a test may damage."""

    def copy(precision: Precision) -> Path:
        return Path(shutil.copytree(trained.bundles[precision].path, tmp_path / precision))

    return copy


@pytest.fixture
def without_vnni(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A processor whose operating system reports AVX2 and no VNNI."""
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text("processor\t: 0\nflags\t\t: fpu sse2 avx2\n")
    monkeypatch.setattr(machine, "_CPU_INFO", cpu_info)
    machine.this_cpu.cache_clear()
    yield
    machine.this_cpu.cache_clear()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_bundle_that_was_built_here_passes(trained: Trained, cli: Cli, precision: Precision) -> None:
    result = cli("doctor", trained.bundles[precision].path)
    assert result.code == 0, result.out
    assert "passed" in result.out
    assert "note" not in result.out


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_remedy_is_computed_only_for_a_fault(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    def unneeded(*_arguments: object, **_more: object) -> str:
        raise AssertionError("nothing is wrong")

    for user in (preflight, onnxruntime):
        monkeypatch.setattr(user, "rebuild_command", unneeded)
        monkeypatch.setattr(user, "recompile_bundle", unneeded)
    open_bundle(trained.bundles[precision].path).embedder("ground")


def test_an_exported_bundle_passes(trained: Trained, cli: Cli) -> None:
    assert cli("doctor", trained.onnx.path).code == 0


def test_the_machine_is_reported_without_a_bundle(cli: Cli) -> None:
    report = json.loads(cli("doctor", "--json").out)
    findings = {entry["what"]: entry["found"] for entry in report["findings"]}
    assert report["passed"]
    assert "cpu" in findings["onnxruntime"]
    assert machine.cpu_dialect() in findings["processor"]
    assert {"Python", "GPU", "openvino", "tensorrt"} <= set(findings)


@pytest.mark.parametrize(
    ("given", "tunables", "library", "found"),
    [
        ("always [madvise] never", "", "2.36", "huge ones where a program asks"),
        ("always [madvise] never", "glibc.malloc.check=0:glibc.malloc.hugetlb=1", "2.35", "huge"),
        ("always [madvise] never", "glibc.malloc.hugetlb=1", "2.31", "needs glibc 2.35"),
        ("[always] madvise never", "", "2.31", "huge"),
        ("always madvise [never]", "glibc.malloc.hugetlb=1", "2.36", "switched off"),
    ],
)
def test_small_memory_pages_are_noted_with_the_setting_for_huge_ones(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, tunables: str, library: str, found: str
) -> None:
    (tmp_path / "enabled").write_text(f"{given}\n")
    monkeypatch.setattr(preflight, "_HUGE_PAGES", tmp_path / "enabled")
    monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", library))
    report = json.loads(cli("doctor", "--json").out)
    (pages,) = [entry for entry in report["findings"] if entry["what"] == "memory pages"]
    assert found in pages["found"]
    assert not pages["failed"]
    assert ("GLIBC_TUNABLES=glibc.malloc.hugetlb=1" in (pages["remedy"] or "")) == ("asks" in found)


def test_a_folder_that_is_no_bundle_is_wrong_usage(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "is not a bundle: it holds no manifest.json" in refused("doctor", tmp_path)
    assert "is not a bundle: there is no such folder" in refused("doctor", tmp_path / "gone")


def test_all_damage_is_reported_together_with_the_commands_that_repair_it(
    copy_of: Callable[[Precision], Path], cli: Cli
) -> None:
    bundle = copy_of("int8")
    (bundle / "ground.onnx").unlink()
    compiled = bundle / "aerial.optimised.onnx"
    compiled.write_bytes(compiled.read_bytes()[:-1])
    result = cli("doctor", bundle, "--json")
    assert result.code == 1
    failed = _failed(result)
    assert set(failed) == {"ground.onnx", "aerial.optimised.onnx"}
    assert "missing" in failed["ground.onnx"]["found"]
    assert "was altered" in failed["aerial.optimised.onnx"]["found"]
    from_checkpoint = failed["ground.onnx"]["remedy"]
    calibration = read_manifest(bundle).quantisation
    assert calibration is not None
    assert from_checkpoint.partition(" --out ")[0] == str(read_manifest(bundle).command).partition(" --out ")[0]
    assert f"--calibration {calibration.calibration.data}" in from_checkpoint
    assert "--precision int8" in from_checkpoint
    assert read_manifest(bundle).source.sha256[:16] in from_checkpoint
    assert failed["aerial.optimised.onnx"]["remedy"] == from_checkpoint, "damaged graphs cannot be compiled again"
    assert "FAILED" in cli("doctor", bundle).out


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_graphs_that_tensorrt_refuses_are_noted_with_the_command_that_exports_them_again(
    copy_of: Callable[[Precision], Path], cli: Cli, precision: Precision
) -> None:
    bundle = copy_of(precision)
    planted.old_pixel_order(bundle)
    report = cli("doctor", bundle, "--json")
    assert report.code == 0, report.out
    noted = {entry["what"]: entry for entry in json.loads(report.out)["findings"] if entry["remedy"]}
    assert set(noted) == {"ground.onnx", "aerial.onnx"}
    for entry in noted.values():
        assert "Transpose on uint8, which TensorRT refuses" in entry["found"]
        assert f"build-engine CKPT --backend onnxruntime --precision {precision}" in entry["remedy"]
        assert f"the checkpoint's SHA-256 is {read_manifest(bundle).source.sha256[:16]}" in entry["remedy"]


def test_a_damaged_compiled_file_is_rebuilt_by_the_command_of_doctor(
    copy_of: Callable[[Precision], Path], cli: Cli, trained: Trained
) -> None:
    bundle = copy_of("int8")
    (bundle / "ground.optimised.onnx").write_bytes(b"broken")
    remedy = _failed(cli("doctor", bundle, "--json"))["ground.optimised.onnx"]["remedy"]
    program, *arguments = shlex.split(remedy)
    assert program == "geodtr-export"
    result = cli(*arguments)
    assert result.code == 0, result.err
    rebuilt = open_bundle(Path(arguments[-1]))
    built = trained.bundles["int8"].manifest
    assert rebuilt.manifest.ground.sha256 == built.ground.sha256
    assert (rebuilt.manifest.precision, rebuilt.manifest.quantisation) == ("int8", built.quantisation)
    assert cli("doctor", rebuilt.path).code == 0


def test_a_corrupt_manifest_is_a_finding(copy_of: Callable[[Precision], Path], cli: Cli) -> None:
    bundle = copy_of("fp32")
    (bundle / "manifest.json").write_text("{ not json")
    result = cli("doctor", bundle, "--json")
    assert result.code == 1
    failed = _failed(result)["manifest.json"]
    assert "not a valid manifest" in failed["found"]
    assert "build-engine CKPT --backend onnxruntime --precision PRECISION" in failed["remedy"]
    assert "PRECISION: fp32, fp16, int8" in failed["remedy"]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_readable_parts_of_a_damaged_manifest_are_in_the_command_that_rebuilds(
    copy_of: Callable[[Precision], Path], cli: Cli, trained: Trained, precision: Precision
) -> None:
    bundle = copy_of(precision)
    manifest = bundle / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-3])
    remedy = _failed(cli("doctor", bundle, "--json"))["manifest.json"]["remedy"]
    recorded = shlex.split(str(trained.bundles[precision].manifest.command))
    assert shlex.split(remedy) == [*recorded[:-1], f"{bundle}-rebuilt"]
    program, *arguments = shlex.split(remedy)
    assert program == "geodtr-export"
    result = cli(*arguments)
    assert result.code == 0, result.err
    assert read_manifest(Path(f"{bundle}-rebuilt")).precision == precision
    assert f"geodtr-export doctor {bundle}" in cli("inspect", bundle).err


def test_a_damaged_manifest_that_records_no_command_is_rebuilt_by_backend_and_precision(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"precision": "mixed", "raw_tiles": 64')
    (tmp_path / "ground.plan").touch()
    assert unread_command(tmp_path).startswith(
        f"geodtr-export build-engine CKPT --backend tensorrt --precision auto --out {tmp_path}-rebuilt  # CKPT: the"
    )


def test_a_manifest_records_the_command_that_built_the_bundle(trained: Trained, cli: Cli, tmp_path: Path) -> None:
    command = ("build-engine", str(trained.onnx.path), "--backend", "openvino", "--precision", "fp16")
    assert cli(*command, "--out", tmp_path / "a bundle").code == 0
    assert shlex.split(str(read_manifest(tmp_path / "a bundle").command)) == [
        "geodtr-export",
        *command,
        "--out",
        str(tmp_path / "a bundle"),
    ]
    assert shlex.split(str(trained.onnx.manifest.command))[:2] == ["geodtr-export", "export"]


def test_a_manifest_of_schema_3_is_read_and_rebuilt_by_a_plain_line(
    copy_of: Callable[[Precision], Path], cli: Cli
) -> None:
    bundle = copy_of("int8")
    _make_older(bundle)
    assert cli("doctor", bundle).code == 0
    (bundle / "aerial.optimised.onnx").unlink()
    compiled = _failed(cli("doctor", bundle, "--json"))["aerial.optimised.onnx"]
    (bundle / "ground.onnx").unlink()
    failed = _failed(cli("doctor", bundle, "--json"))
    older = read_manifest(bundle)
    assert older.quantisation is not None
    assert failed["ground.onnx"]["remedy"].startswith(
        f"geodtr-export build-engine CKPT --backend onnxruntime --calibration "
        f"{shlex.quote(older.quantisation.calibration.data)} --precision int8 --out {bundle}-rebuilt  # the"
    )
    assert compiled["remedy"].startswith(
        f"geodtr-export build-engine {bundle} --backend onnxruntime --dialect {older.quantisation.dialect} "
        "--precision same"
    )


def test_a_manifest_of_schema_3_is_rewritten_in_the_newest(
    copy_of: Callable[[Precision], Path], trained: Trained, cli: Cli
) -> None:
    bundle = copy_of("fp32")
    _make_older(bundle)
    command = ("parity", trained.onnx.path, bundle, "--data", trained.test_set.name, "--limit", 20, "--no-stages")
    assert cli(*command).code == 0
    assert (read_manifest(bundle).schema, read_manifest(bundle).writer) == (6, __version__)


def test_a_newer_manifest_is_explained_with_the_update_command(
    copy_of: Callable[[Precision], Path], cli: Cli, refused: Callable[..., str]
) -> None:
    bundle = copy_of("fp32")
    manifest = bundle / "manifest.json"
    newer = json.loads(manifest.read_bytes()) | {"schema": 7, "writer": "2.0.0", "unknown": {}}
    manifest.write_text(json.dumps(newer))
    failed = _failed(cli("doctor", bundle, "--json"))["manifest.json"]
    assert "has schema 7, written by geodtr-export 2.0.0" in failed["found"]
    assert "reads schemas up to 6" in failed["found"]
    assert "Update it to 2.0.0 or later" in failed["found"]
    assert failed["remedy"] == install_hint(upgrade=True)
    assert "written by geodtr-export 2.0.0" in " ".join(refused("inspect", bundle).split())


@pytest.mark.parametrize("content", [b'{"schema": 2}', b"{", b"[" * 100_000])
def test_doctor_does_not_refer_to_itself(copy_of: Callable[[Precision], Path], cli: Cli, content: bytes) -> None:
    bundle = copy_of("fp32")
    (bundle / "manifest.json").write_bytes(content)
    failed = _failed(cli("doctor", bundle, "--json"))["manifest.json"]
    assert "geodtr-export doctor" not in failed["found"]
    assert failed["remedy"].startswith("geodtr-export build-engine")
    assert "geodtr-export doctor" in cli("inspect", bundle).err


def test_a_manifest_that_is_a_folder_is_no_manifest(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    assert "a folder, a pipe or a device" in refused("doctor", tmp_path)


def test_graphs_optimised_on_another_machine_still_run(
    copy_of: Callable[[Precision], Path], cli: Cli, trained: Trained
) -> None:
    bundle = copy_of("fp32")
    manifest = read_manifest(bundle)
    older = msgspec.structs.replace(manifest, backend=msgspec.structs.replace(manifest.backend, version="1.19.0"))
    write_manifest(bundle, older)
    result = cli("doctor", bundle, "--json")
    assert result.code == 0
    (note,) = [entry for entry in json.loads(result.out)["findings"] if entry["remedy"]]
    assert "1.19.0" in note["found"]
    assert "--precision same" in note["remedy"]
    assert cli("evaluate", bundle, "--data", trained.test_set.name, "--limit", 8).code == 0


def test_a_missing_provider_fails_in_doctor_and_on_opening(
    copy_of: Callable[[Precision], Path], cli: Cli, trained: Trained
) -> None:
    bundle = copy_of("fp32")
    manifest = read_manifest(bundle)
    write_manifest(
        bundle, msgspec.structs.replace(manifest, backend=msgspec.structs.replace(manifest.backend, provider="cuda"))
    )
    result = cli("doctor", bundle, "--json")
    assert result.code == 1
    reason = _failed(result)["provider"]["found"]
    assert "no cuda provider" in reason
    opening = cli("evaluate", bundle, "--data", trained.test_set.name)
    assert opening.code == 2
    assert reason in opening.err


@pytest.mark.usefixtures("without_vnni")
def test_eight_bit_weights_are_refused_on_a_cpu_without_vnni(
    copy_of: Callable[[Precision], Path], cli: Cli, trained: Trained
) -> None:
    bundle = copy_of("int8")
    manifest = read_manifest(bundle)
    assert manifest.quantisation is not None
    forged = msgspec.structs.replace(manifest.quantisation, dialect="cpu-8bit")
    write_manifest(bundle, msgspec.structs.replace(manifest, quantisation=forged))
    with pytest.raises(BundleError, match=r"no VNNI.*geodtr-export build-engine .*--calibration"):
        open_bundle(bundle).embedder("ground")
    refused = cli("evaluate", bundle, "--data", trained.test_set.name)
    assert refused.code == 2
    assert "no VNNI" in refused.err
    result = cli("doctor", bundle, "--json")
    assert result.code == 1
    assert "build-engine" in _failed(result)["INT8"]["remedy"]
    assert cli("inspect", bundle).code == 0, "what a bundle holds can be seen anywhere"


@pytest.mark.usefixtures("without_vnni")
def test_a_dialect_that_this_cpu_computes_wrongly_is_refused_before_any_work(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    command = ("build-engine", trained.onnx.path, "--precision", "int8", "--calibration", trained.test_set.name)
    assert "no VNNI" in refused(*command, "--dialect", "cpu-8bit", "--out", tmp_path / "b")


@pytest.mark.usefixtures("without_vnni")
def test_seven_bit_weights_run_without_vnni(copy_of: Callable[[Precision], Path], cli: Cli) -> None:
    bundle = copy_of("int8")
    manifest = read_manifest(bundle)
    assert manifest.quantisation is not None
    forged = msgspec.structs.replace(manifest.quantisation, dialect="cpu-7bit")
    write_manifest(bundle, msgspec.structs.replace(manifest, quantisation=forged))
    assert cli("doctor", bundle).code == 0


def test_graphs_of_another_dialect_are_not_recompiled(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    command = ("build-engine", trained.bundles["int8"].path, "--precision", "same", "--dialect", "tensorrt")
    assert "quantised as" in refused(*command, "--out", tmp_path / "b")


def test_only_a_bundle_is_recompiled(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "is not a bundle" in refused(
        "build-engine", trained.checkpoint, "--precision", "same", "--out", tmp_path / "b"
    )


def test_the_gpu_is_read_from_the_drivers_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    """A library with the driver's five functions, compiled for the test, replaces the driver."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "driver.c").write_text(DRIVER)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "driver.so", tmp_path / "driver.c"], check=True)
    monkeypatch.setattr(machine, "_CUDA", str(tmp_path / "driver.so"))
    machine.this_gpu.cache_clear()
    gpu = machine.this_gpu()
    report = cli("doctor").out
    machine.this_gpu.cache_clear()
    assert gpu is not None
    assert (gpu.gpu, gpu.compute_capability, gpu.driver) == ("Orin", "8.7", "12.6")
    assert "Orin, compute capability 8.7, driver for CUDA 12.6" in report


def _make_older(bundle: Path) -> None:
    """Rewrite the manifest in schema 3."""
    manifest = bundle / "manifest.json"
    held = json.loads(manifest.read_bytes()) | {"schema": 3}
    del held["writer"], held["command"], held["backend"]["options"]
    manifest.write_text(json.dumps(held))


def _failed(result: Outcome) -> dict[str, dict[str, Any]]:
    return {entry["what"]: entry for entry in json.loads(result.out)["findings"] if entry["failed"]}
