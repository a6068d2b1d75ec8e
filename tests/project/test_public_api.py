"""The public names: each is lazy, documented, and its example runs as it is printed."""

import doctest
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Trained

import geodtr
from geodtr import UserError
from geodtr.runtime.installation import install_hint
from geodtr.training.world.dataset import WorldSet, write_world

FUNCTIONS = ("build_engine", "build_gallery", "compare", "embed", "export_onnx", "open_bundle", "open_gallery", "train")
CLASSES = ("Bundle", "Localizer", "UserError")


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(trained.bundles["fp32"].path, folder / "bundle")
    shutil.copytree(trained.gallery.path, folder / "map")
    shutil.copyfile(trained.checkpoint, folder / "model.safetensors")
    (folder / "tiles").mkdir()
    for pair in trained.test_set.pairs[:9]:
        shutil.copyfile(pair.aerial, folder / "tiles" / pair.aerial.name)
    shutil.copyfile(trained.test_set.pairs[3].ground, folder / "street.png")
    write_world(folder / "world", WorldSet(pairs=48, height=32, width=128))
    return folder


def test_importing_the_package_loads_nothing() -> None:
    script = "import sys, geodtr; print([name for name in ('numpy', 'torch', 'onnx', 'typer') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_names_exist_and_no_other() -> None:
    assert set(geodtr.__all__) >= {*FUNCTIONS, *CLASSES, "__version__"}
    assert set(dir(geodtr)) >= set(geodtr.__all__)
    for name in geodtr.__all__:
        assert getattr(geodtr, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = geodtr.nothing_of_this_name


def test_a_name_without_its_packages_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(geodtr), "train", raising=False)
    monkeypatch.setattr(geodtr, "find_spec", lambda _package: None)
    with pytest.raises(UserError, match=f"torch.*{re.escape(install_hint('train'))}"):
        _ = geodtr.train


@pytest.mark.parametrize(
    "call",
    [
        "geodtr.compare('model.safetensors', ['bundle'], 'pairs:world')",
        "geodtr.build_engine(geodtr.BuildRequest('model.safetensors', 'new-bundle'))",
    ],
)
def test_a_checkpoint_without_pytorch_names_the_extra(call: str, folder: Path) -> None:
    without = "import sys; sys.modules['torch'] = None\nimport geodtr"
    script = f"{without}\ntry: {call}\nexcept geodtr.UserError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"This needs torch, which is not installed: {install_hint('train')}"


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_the_example_of_its_docstring_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    finder = doctest.DocTestFinder(recurse=False)
    examples = [each for each in finder.find(getattr(geodtr, name), name) if each.examples]
    assert examples, f"{name} has no example"
    for each in examples:
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(each)
        assert result.failed == 0
