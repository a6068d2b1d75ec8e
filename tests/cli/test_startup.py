"""Startup cost: help is instant, a wrong path is found before PyTorch is imported, bundles run without PyTorch."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from geodtr.cli.main import app

COMMANDS = (
    "demo",
    "world",
    "data check",
    "data prepare",
    "train",
    "evaluate",
    "visualize",
    "published",
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
    "gallery split",
    "bundle triton",
    "gallery merge",
    "gallery info",
    "gallery verify",
    "gallery export",
    "bundle key",
    "bundle pack",
    "bundle unpack",
    "bundle rollback",
    "bundle verify",
    "photos",
    "flight",
    "localize",
    "serve",
    "simulate",
)
MISSING = (
    "evaluate gone --data pairs:gone",
    "evaluate model.safetensors --data pairs:gone",
    "visualize gone --data pairs:gone --out o.png",
    "published --results gone.json",
    "visualize model.safetensors --data pairs:gone --out o.png",
    "import-checkpoint gone.pth --out o.safetensors",
    "import-checkpoint model.safetensors --parameters gone.json --out o.safetensors",
    "data check pairs:gone",
    "data prepare pairs:gone --preset geodtr-cvusa --out o",
    "data show pairs:gone --preset geodtr-cvusa --out o.png",
    "train --data pairs:gone --out o",
    "train --data pairs:gone --preset gone.toml --out o",
    "resume gone",
    "finetune gone --data pairs:gone --out o",
    "finetune model.safetensors --data pairs:gone --out o",
    "finetune model.safetensors --data pairs:gone --preset gone.toml --out o",
    "export gone --out o",
    "build-engine gone --out o",
    "build-engine gone --backend auto --out o",
    "build-engine gone --backend tensorrt --out o",
    "build-engine model.safetensors --precision int8 --calibration gone --out o",
    "build-engine model.safetensors --precision auto --calibration pairs:gone --recall-on pairs:gone --out o",
    "calibrate gone --data pairs:gone --out o.json",
    "calibrate model.safetensors --data gone --out o.json",
    "parity model.safetensors gone --data pairs:gone",
    "inspect gone",
    "bench gone",
    "bench model.safetensors --data pairs:gone",
    "doctor gone",
    "photos gone",
    "embed gone image.png --branch ground --out o.npy",
    "gallery build gone . --out o",
    "gallery add gone gone .",
    "gallery preview gone",
    "gallery remove gone a",
    "gallery compact gone",
    "gallery calibrate gone gone --data pairs:gone",
    "gallery split gone --grid 1000 --out o",
    "gallery merge gone --out o",
    "bundle triton gone --out o",
    "gallery info gone",
    "gallery verify gone",
    "bundle pack gone --key gone --out o",
    "bundle unpack gone . --trust gone",
    "bundle rollback gone",
    "bundle verify gone",
    "gallery export gone --out o.csv",
    "localize image.png --bundle gone --gallery gone",
    "serve --bundle gone --gallery gone --port 0",
    "simulate gone --out o",
)
"""Commands in a folder that holds a `model.safetensors` and an `image.png`, and nothing else."""
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "scipy", "matplotlib", "numpy", "PIL")


_RUN = """
import contextlib, io, json, sys
before = {*sys.modules}
import geodtr.cli.main as cli
for line in json.load(sys.stdin):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            cli.run(line.split())
        except SystemExit as left:
            code = left.code
    print(json.dumps([line, code or 0, printed.getvalue(), sorted({*sys.modules} - before)]))
    before = {*sys.modules}
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """The result of a command line; `heavy`: the packages of HEAVY that it was the first to import."""

    code: int
    printed: str
    heavy: list[str]


def run_in_one_process(lines: Sequence[str], folder: Path) -> dict[str, Ran]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN], input=json.dumps(lines), capture_output=True, text=True, check=True, cwd=folder
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        line: Ran(code, printed, [name for name in HEAVY if name in loaded]) for line, code, printed, loaded in results
    }


def commands(group: Any, before: str = "") -> set[str]:
    """Every command of the command line, as it is typed."""
    if not hasattr(group, "commands"):
        return {before.strip()}
    return {each for name, one in group.commands.items() for each in commands(one, f"{before} {name}")}


@pytest.fixture(scope="module")
def helps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    return run_in_one_process([f"{command} --help" for command in COMMANDS], tmp_path_factory.mktemp("help"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(helps: dict[str, Ran], command: str) -> None:
    ran = helps[f"{command} --help"]
    assert ran.code == 0
    assert ran.heavy == []
    assert command in ran.printed


def test_a_missing_path_is_reported_before_anything_slow_is_imported(tmp_path: Path) -> None:
    for name in ("model.safetensors", "image.png"):
        (tmp_path / name).touch()
    for line, ran in run_in_one_process(MISSING, tmp_path).items():
        assert ran.code == 2, line
        assert "gone" in ran.printed, line
        assert not {"torch", "onnx", "scipy", "matplotlib"} & {*ran.heavy}, line


def test_every_command_that_takes_a_path_is_among_those_above() -> None:
    named = {command for command in commands(get_command(app)) if any(line.startswith(command) for line in MISSING)}
    assert commands(get_command(app)) - named == {"demo", "world", "flight", "bundle key"}, "these write only"


def test_bundles_run_without_pytorch() -> None:
    script = (
        "import sys\n"
        "import geodtr.runtime.localization.localizer, geodtr.runtime.gallery.registry\n"
        "import geodtr.training.data.spec, geodtr.training.evaluation.evaluate\n"
        "print([name for name in ('torch', 'onnx', 'scipy', 'typer') if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_checkpoint_runs_without_what_takes_as_long_to_load_as_pytorch(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "import numpy as np\n"
        "import geodtr.training.loop\n"
        "from pathlib import Path\n"
        "from geodtr.export.model import open_model\n"
        "from geodtr.training.models.checkpoint import save_checkpoint\n"
        "from geodtr.training.models.registry import build_model\n"
        "from geodtr.training.presets.load import load_preset\n"
        "config = load_preset('world-tiny')\n"
        "network = build_model(config.model, config.ground, config.aerial)\n"
        "save_checkpoint(Path('m.safetensors'), network, 'random weights')\n"
        "how = config.ground\n"
        "open_model(Path('m.safetensors')).embedders.ground.embed(np.zeros((1, how.height, how.width, 3), np.uint8))\n"
        "print([name for name in ('torchvision', 'torch._dynamo', 'scipy') if name in sys.modules])\n"
    )
    line = [sys.executable, "-c", script]
    result = subprocess.run(line, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.strip() == "[]"
