"""The command for a GPU machine: the bundle is installed, a failing check affects no other, the results are correct."""

import base64
import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import gpu_bundle
import gpu_page
import pytest
from checkout import ROOT
from gpu.checks import CHECKS, Check
from gpu.install import install
from gpu.parts import BASE, BundleFault, Contents, cut, join, read_contents, write_contents
from gpu.results import FILE_NAME, Outcome, Results, read_results
from gpu.runner import Plan, run_checks

COMMAND = [sys.executable, str(ROOT / "tools" / "on_gpu.py")]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A base of one package, and an ONNX Runtime that stands for the one for GPUs, in parts of 300 bytes."""
    folder, wheels = tmp_path / "bundle", tmp_path / "wheels"
    folder.mkdir()
    wheels.mkdir()
    groups = (
        cut(BASE, [write_wheel(wheels, "carried", "carried")], folder, 300),
        cut("onnxruntime-gpu", [write_wheel(wheels, "onnxruntime_gpu", "onnxruntime")], folder, 300),
    )
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    presumed = ("msgspec", "numpy", "onnxruntime", "setuptools", "not-there")
    write_contents(folder, Contents(python, presumed, groups))
    return folder


def write_wheel(folder: Path, package: str, module: str) -> Path:
    path, name = folder / f"{package}-9.0-py3-none-any.whl", f"{package}-9.0.dist-info"
    files = {
        f"{module}/__init__.py": "CARRIED = True\n",
        f"{name}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 9.0\n",
        f"{name}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{file},sha256={_digest(content)},{len(content)}" for file, content in files.items()]
    files[f"{name}/RECORD"] = "\n".join([*record, f"{name}/RECORD,,\n"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return path


def _digest(content: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()


def test_before_anything_is_installed_it_needs_python_alone() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import on_gpu"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_what_a_machine_has_is_known_by_any_spelling() -> None:
    listed = "# made by pip\nTyping_Extensions==4.1\nruamel.yaml @ file:///x\ntorch\n\n"
    assert gpu_bundle.names(listed) == {"typing-extensions", "ruamel-yaml", "torch"}


def test_parts_are_small_and_give_the_wheels_again(tmp_path: Path, bundle: Path) -> None:
    contents = read_contents(bundle)
    for group in contents.groups:
        assert len(group.parts) > 1
        assert all(part.bytes <= 300 for part in group.parts)
        (wheel,) = join(group, bundle, tmp_path)
        assert wheel.read_bytes() == (tmp_path / "wheels" / wheel.name).read_bytes()


def test_a_damaged_part_is_refused(tmp_path: Path, bundle: Path) -> None:
    group = read_contents(bundle).groups[0]
    part = bundle / group.parts[-1].name
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleFault, match="is corrupted"):
        join(group, bundle, tmp_path)
    part.write_bytes(b"")
    with pytest.raises(BundleFault, match="ends within"):
        join(group, bundle, tmp_path)


def test_without_its_base_or_for_another_python_a_bundle_is_refused(tmp_path: Path, bundle: Path) -> None:
    contents = read_contents(bundle)
    write_contents(bundle, replace(contents, python="2.7"))
    with pytest.raises(BundleFault, match=r"for Python 2\.7"):
        install(bundle, ROOT, tmp_path / "environment")
    write_contents(bundle, contents)
    (bundle / contents.groups[0].parts[0].name).unlink()
    with pytest.raises(BundleFault, match=r"lacks base\.1"):
        install(bundle, ROOT, tmp_path / "environment")
    with pytest.raises(BundleFault, match="make gpu-bundle"):
        install(tmp_path, ROOT, tmp_path / "environment")


@pytest.mark.parametrize("arrived", [True, False])
def test_an_environment_has_the_bundle_and_only_named_packages_of_the_machine(
    tmp_path: Path, bundle: Path, arrived: bool
) -> None:
    if not arrived:
        (bundle / read_contents(bundle).groups[1].parts[0].name).unlink()
    environment = install(bundle, ROOT, tmp_path / "environment")
    assert ("not-there is not on this machine" in environment.notes) and (len(environment.notes) == 1 + (not arrived))
    code = "import carried, geodtr.runtime.names, numpy, onnxruntime; print(hasattr(onnxruntime, 'CARRIED'))"
    done = subprocess.run([environment.python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(arrived), "the machine's own ONNX Runtime only where no other came"
    code = "import importlib.util as i; print(i.find_spec('pytest'), i.find_spec('msgspec') is not None)"
    done = subprocess.run([environment.python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "True"]


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Check]]:
    """Checks by their bodies."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(**bodies: str) -> list[Check]:
        for name, body in bodies.items():
            lines = ["import os, sys, time", "def run(report, setting):", "    report.fact('found', 1)", f"    {body}"]
            (tmp_path / f"{name}.py").write_text("\n".join(lines))
        return [Check(name, name, name, 60) for name in bodies]

    return make


def plan(tmp_path: Path, seconds: float = 100) -> Plan:
    out, work = tmp_path / "out", tmp_path / "work"
    work.mkdir(exist_ok=True)
    return Plan(Path(sys.executable), out, work, False, seconds)


def test_a_check_that_crashes_or_hangs_costs_only_itself(tmp_path: Path, checks: Callable[..., list[Check]]) -> None:
    planned = checks(
        crashes="os.abort()",
        hangs="time.sleep(600)",
        fails="report.require(False, 'one is not two')",
        raises="raise ValueError('seven')",
        passes="report.row('Table', a_column=2)",
    )
    planned = [replace(check, seconds=5) if check.name == "hangs" else check for check in planned]
    results = run_checks(planned, plan(tmp_path), {})
    assert results == read_results(tmp_path / "out" / FILE_NAME)
    assert [outcome.status for outcome in results.outcomes] == ["crashed", "out of time", "failed", "crashed", "passed"]
    assert all(outcome.facts == {"found": 1} for outcome in results.outcomes), "what was found before is kept"
    assert results.outcomes[2].message == "one is not two"
    assert results.outcomes[3].message == "exit code 1: ValueError: seven"
    assert results.outcomes[4].tables == {"Table": [{"a column": 2}]}


def test_checks_without_time_left_are_not_run(tmp_path: Path, checks: Callable[..., list[Check]]) -> None:
    results = run_checks(checks(passes="pass"), plan(tmp_path, seconds=0), {})
    assert [outcome.status for outcome in results.outcomes] == ["not run"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_its_results(tmp_path: Path, checks: Callable[..., list[Check]], number: int) -> None:
    checks(first="report.fact('pid', os.getpid()); time.sleep(600)", second="pass")
    code = (
        "from pathlib import Path; from gpu.checks import Check; from gpu.runner import Plan, run_checks; import sys;"
        "run_checks([Check(n, n, n, 60) for n in ('first', 'second')],"
        "Plan(Path(sys.executable), Path('out'), Path('work').absolute(), True, 100), {})"
    )
    (tmp_path / "work").mkdir()
    path = os.pathsep.join([str(ROOT / "tools"), str(tmp_path)])
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path})
    file = tmp_path / "out" / FILE_NAME
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (file.exists() and read_results(file).outcomes[0].facts.get("pid")):
        time.sleep(0.1)
    process.send_signal(number)
    process.wait(20)
    first, second = read_results(file).outcomes
    assert (first.status, first.facts["found"], second.status) == ("interrupted", 1, "not run")
    if number == signal.SIGKILL:
        os.killpg(first.facts["pid"], signal.SIGKILL)  # no other process was left to end it
    else:
        with pytest.raises(ProcessLookupError):
            os.kill(first.facts["pid"], 0)


def test_a_missing_gpu_is_reported(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "--out", tmp_path / "out"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no CUDA GPU" in done.stderr and "--dry-run" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "names", [("steps", "tensorrt-rtx"), pytest.param([check.name for check in CHECKS], marks=pytest.mark.slow)]
)
def test_a_dry_run_runs_the_checks_on_the_cpu(tmp_path: Path, names: Sequence[str]) -> None:
    line = [*COMMAND, "--dry-run", "--out", str(tmp_path), "--only", *names]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    results = read_results(tmp_path / FILE_NAME)
    assert done.returncode == 0, (done.stderr, results)
    status = {outcome.name: outcome.status for outcome in results.outcomes}
    assert list(status) == list(names)
    assert status.pop("tensorrt-rtx") == "skipped", "plans do not run on CPUs"
    assert set(status.values()) == {"passed"}
    with pytest.raises(SystemExit, match="dry run"):
        gpu_page.main(str(tmp_path / FILE_NAME))


def test_the_page_is_what_its_generator_writes_and_reports_that_nothing_was_run() -> None:
    results = read_results(gpu_page.RESULTS) if gpu_page.RESULTS.exists() else None
    assert gpu_page.PAGE.read_text() == gpu_page.page(results)
    assert "Not yet run on a GPU" in gpu_page.page(None)


def test_the_page_shows_every_figure_and_why_a_check_has_not_passed() -> None:
    rows = [{"engine": "fp16", "images/s": 12345.6}, {"engine": "int8", "cosine": 0.99999}]
    outcome = Outcome("a", "First", "failed", 12.3, "too slow", {"R@1": 0.5, "verdict": "passed"}, {"Speed": rows})
    page = gpu_page.page(Results("today", False, {"GPU": "H100"}, ("b is not here",), (outcome,)))
    for text in (
        "Run on today. GPU H100. b is not here.",
        "| First | failed | 12.3 |",
        "## First: failed",
        "too slow",
        "| R@1 | 0.5 |",
        "| engine | images/s | cosine |",
        "| fp16 | 12,346 |  |",
        "| int8 |  | 0.9999900 |",
    ):
        assert text in page


def test_all_checks_fit_into_ten_minutes() -> None:
    assert sum(check.seconds for check in CHECKS) <= 600
    assert len({check.name for check in CHECKS}) == len(CHECKS)
