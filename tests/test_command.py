"""The command itself: how it is started, its version, and the shell's completion of it."""

import subprocess
import sys
from pathlib import Path

import pytest

import geodtr

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = str(Path(sys.executable).with_name("geodtr-export"))


@pytest.mark.parametrize("command", [[PROGRAM], [sys.executable, "-m", "geodtr"]], ids=["program", "module"])
@pytest.mark.parametrize("here", [ROOT, Path.home()], ids=["checkout", "elsewhere"])
def test_it_prints_its_version_alone(command: list[str], here: Path) -> None:
    line = [*command, "--version"]
    printed = subprocess.run(line, cwd=here, capture_output=True, text=True, check=True).stdout
    assert printed == f"{geodtr.__version__}\n"


def test_the_package_is_imported_without_any_of_its_parts() -> None:
    script = "import sys, geodtr; print([name for name in sys.modules if name.startswith(('geodtr.', 'numpy'))])"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"
