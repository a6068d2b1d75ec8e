"""`geodtr_parity` in another project's tests: pytest runs there, with real engines, by the example of the docs."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import onnx
import pytest
from checkout import ROOT
from onnx import numpy_helper
from tiny_bundle import write_bundle, write_pairs

from geodtr.runtime.files import sha256
from geodtr.runtime.manifest import read_manifest, write_manifest

DOCS = ROOT / "docs" / "parity.md"

pytest_plugins = ["pytester"]
TEST = "test_the_projects_engine.py"
"""Run in this process, where a module's name counts once."""


@pytest.fixture
def project(pytester: pytest.Pytester) -> Path:
    """A project whose engine is as good as its reference, with another model's beside it, and a data set."""
    folder = pytester.path
    (folder / "bundles").mkdir()
    write_bundle(folder / "reference")
    write_bundle(folder / "bundles" / "int8")
    write_bundle(folder / "bundles" / "another", seed=1)
    write_pairs(folder / "held-out", 40)
    return folder


def damage(bundle: Path) -> None:
    """Make an engine of other weights pass for the same model's."""
    path = bundle / "ground.onnx"
    graph = onnx.load(path)
    weights = graph.graph.initializer[2]
    values = numpy_helper.to_array(weights)[:, ::-1].copy()
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(graph, path)
    manifest = read_manifest(bundle)
    entry = msgspec.structs.replace(manifest.ground, sha256=sha256(path), bytes=path.stat().st_size)
    write_manifest(bundle, msgspec.structs.replace(manifest, ground=entry))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pytest run left: its exit code and what it printed."""

    code: int
    out: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(pytester: pytest.Pytester, project: Path) -> Run:
    """Run a test as the project's own."""

    def call(test: str, *options: str) -> Outcome:
        (project / TEST).write_text(test)
        done = pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)
        return Outcome(int(done.ret), done.stdout.str())

    return call


def example() -> str:
    """The test in docs/parity.md."""
    section = DOCS.read_text().partition("## In your own CI")[2]
    snippet = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert snippet
    return snippet[1]


def test_the_example_of_the_docs_passes_and_leaves_its_report(project: Path) -> None:
    manifest = (project / "bundles" / "int8" / "manifest.json").read_bytes()
    (project / TEST).write_text(example())
    report = project / "reports" / f"{TEST}-test_the_engine_finds_what_the_model_finds.html"
    report.parent.mkdir()
    report.write_text("an earlier run's")
    command = [sys.executable, "-m", "pytest", "--geodtr-report", "reports"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert list(report.parent.iterdir()) == [report]
    assert "Passed: int8" in report.read_text("utf-8")
    assert (project / "bundles" / "int8" / "manifest.json").read_bytes() == manifest, "tests write into no bundle"


def test_a_worse_engine_fails_the_test_in_words(run: Run, project: Path) -> None:
    damage(project / "bundles" / "int8")
    done = run(example(), "--geodtr-report", "reports")
    assert done.code == 1
    assert "Failed: int8 does not pass, on 40 pairs of pairs:held-out" in done.out
    assert "hits lost" in done.out
    assert "smallest cosine" in done.out
    assert "Traceback" not in done.out
    assert "pytest_plugin.py" not in done.out, "the failure is the engine's, not ours"
    (report,) = (project / "reports").iterdir()
    assert f"Report: reports/{report.name}" in done.out
    assert "Failed: int8" in report.read_text("utf-8")


def test_limits_are_the_projects_own(run: Run) -> None:
    test = (
        "def test_it(geodtr_parity):\n"
        "    result = geodtr_parity('reference', 'bundles/int8', data='pairs:held-out', limit=10,\n"
        "                           max_drop={'fp32': 50.0}, min_cosine={'fp32': 0.9},\n"
        "                           accept_undecided=True, stages=False)\n"
        "    assert result.figures.pairs == 10\n"
        "    (candidate,) = result.candidates\n"
        "    assert (candidate.gate.max_drop, candidate.gate.least_cosine) == (0.5, 0.9)\n"
        "    assert not candidate.stages\n"
    )
    done = run(test)
    assert done.code == 0, done.out


def test_a_sample_too_small_to_decide_is_no_pass(run: Run) -> None:
    test = (
        "def test_it(geodtr_parity):\n"
        "    geodtr_parity('reference', 'bundles/int8', data='pairs:held-out', max_drop={'fp32': 1.0})\n"
    )
    done = run(test)
    assert done.code == 1
    assert "Undecided: too few pairs to decide the recall of int8" in done.out
    assert "About 390 pairs would decide" in done.out
    assert "geodtr-export world MORE --pairs 390 && geodtr-export parity reference bundles/int8" in done.out
    assert "pytest --geodtr-report DIR" in done.out


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("geodtr_parity('reference', 'bundles/another', data='pairs:held-out')", "another checkpoint"),
        ("geodtr_parity('reference', 'bundles/none', data='pairs:held-out')", "neither a bundle"),
        ("geodtr_parity('reference', 'bundles/int8', data='pairs:nowhere')", "nowhere"),
        ("geodtr_parity('reference', data='pairs:held-out')", "at least one candidate"),
        ("geodtr_parity('reference', 'bundles/int8', data='pairs:held-out', max_drop={'int7': 1})", "int7"),
        ("geodtr_parity('reference', 'bundles/int8', data='pairs:held-out', min_cosine={'fp32': 2})", "0 to 1"),
        ("geodtr_parity('reference', 'bundles/int8', data='pairs:held-out', limit=-1)", "at least 2 pairs"),
    ],
)
def test_an_impossible_comparison_fails_with_one_sentence(run: Run, call: str, expected: str) -> None:
    done = run(f"def test_it(geodtr_parity):\n    {call}\n")
    assert done.code == 1
    assert expected in done.out
    assert "Traceback" not in done.out
    assert len(re.findall(r"geodtr_parity: ", done.out)) >= 1


def test_a_report_that_cannot_be_written_is_refused_before_any_work(run: Run, project: Path) -> None:
    (project / "taken").write_text("")
    done = run(example(), "--geodtr-report", "taken")
    assert done.code == 1
    assert "cannot be written" in done.out


def test_a_tests_calls_leave_a_report_each_in_the_folder_that_was_named(run: Run, project: Path) -> None:
    call = "    geodtr_parity('reference', 'bundles/int8', data='pairs:held-out')\n"
    test = f"import pytest\n@pytest.mark.parametrize('n', ['../a'])\ndef test_it(geodtr_parity, n):\n{call}{call}"
    done = run(test, "--geodtr-report", "reports")
    assert done.code == 0, done.out
    names = sorted(path.name for path in (project / "reports").iterdir())
    assert names == [f"{TEST}-test_it-..-a-2.html", f"{TEST}-test_it-..-a.html"]


def test_every_other_projects_tests_start_as_fast_as_before() -> None:
    script = (
        "import sys, pytest; before = set(sys.modules); import geodtr.export.pytest_plugin\n"
        "print(sorted(set(sys.modules) - before - sys.stdlib_module_names))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['geodtr', 'geodtr.export', 'geodtr.export.pytest_plugin']"
