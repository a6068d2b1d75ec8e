"""The house's plan holds: imports point down, the runtime is lean, and help is instant."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BELOW = {
    "runtime": set[str](),
    "calibration": {"runtime"},
    "training": {"runtime"},
    "export": {"runtime", "calibration", "training"},
}
COMMANDS = (
    "demo",
    "world",
    "data check",
    "data prepare",
    "train",
    "evaluate",
    "visualize",
    "import-checkpoint",
    "export",
    "build-engine",
    "parity",
    "inspect",
    "bench",
    "doctor",
    "embed",
    "gallery build",
    "gallery add",
    "gallery preview",
    "gallery remove",
    "gallery compact",
    "gallery calibrate",
    "gallery info",
    "gallery verify",
    "gallery export",
    "localize",
)
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "scipy", "matplotlib", "numpy", "PIL")


@pytest.mark.parametrize("room", BELOW)
def test_imports_point_down_only(room: str) -> None:
    allowed = BELOW[room] | {room, "__version__"}
    for path in (ROOT / room).rglob("*.py"):
        for module in _imports(path):
            if module.startswith("geodtr."):
                assert module.split(".")[1] in allowed, f"{path} imports {module}"


def test_the_runtime_imports_no_heavy_library() -> None:
    for path in (ROOT / "runtime").rglob("*.py"):
        heavy = {module.split(".")[0] for module in _imports(path)} & {
            "torch",
            "onnx",
            "typer",
            "scipy",
            "matplotlib",
            "rich",
        }
        assert not heavy, f"{path} imports {heavy}"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(command: str) -> None:
    script = (
        "import sys, geodtr.cli.main as cli\n"
        f"try: cli.run({command.split()!r} + ['--help'])\n"
        f"except SystemExit: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
    assert command in result.stdout


def test_bundles_fly_without_the_training_room() -> None:
    script = (
        "import sys\n"
        "import geodtr.runtime.localization.localizer, geodtr.runtime.gallery.base\n"
        "import geodtr.training.data.spec, geodtr.training.evaluation.evaluate\n"
        "print([name for name in ('torch', 'onnx', 'scipy', 'typer') if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def _imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found
