"""The command itself: how it is started, its version, and the shell's completion of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

import geodtr

PROGRAM = str(Path(sys.executable).with_name("geodtr-export"))


@pytest.mark.parametrize("command", [[PROGRAM], [sys.executable, "-m", "geodtr"]], ids=["program", "module"])
@pytest.mark.parametrize("here", [ROOT, Path.home()], ids=["checkout", "elsewhere"])
def test_it_prints_its_version_alone(command: list[str], here: Path) -> None:
    line = [*command, "--version"]
    printed = subprocess.run(line, cwd=here, capture_output=True, text=True, check=True).stdout
    assert printed == f"{geodtr.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("ga", {"gallery"}), ("gallery in", {"info"}), ("build-engine --precision fp", {"fp32", "fp16", "fp8"})],
)
def test_bash_completes_commands_and_values(typed: str, offered: set[str]) -> None:
    words = f"geodtr-export {typed}"
    variables = {"_GEODTR_EXPORT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(typed.split()))}
    done = subprocess.run([PROGRAM], env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == offered
    assert not done.stderr


def test_completion_can_be_installed(tmp_path: Path) -> None:
    line = [PROGRAM, "--install-completion", "bash"]
    # The shell is the one that is named, whichever shell runs the tests.
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    subprocess.run(line, env=environment, capture_output=True, check=True)
    assert "_GEODTR_EXPORT_COMPLETE=complete_bash" in (tmp_path / ".bash_completions" / "geodtr-export.sh").read_text()


def test_importing_the_package_imports_none_of_its_parts() -> None:
    script = "import sys, geodtr; print([name for name in sys.modules if name.startswith(('geodtr.', 'numpy'))])"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"


def test_citation_and_changelog_are_of_this_version() -> None:
    assert f"\nversion: {geodtr.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{geodtr.__version__}] - " in (ROOT / "CHANGELOG.md").read_text()
