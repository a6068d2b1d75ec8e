"""Error messages name the command that installs what is missing, for the way the package was installed."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from geodtr.runtime import installation
from geodtr.runtime.installation import install_hint, pip

Recorded = dict[str, Any]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    installation._source.cache_clear()
    yield
    installation._source.cache_clear()


def installed_from(recorded: Recorded | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's only record of the package, written as an installer writes it, beside pip's."""
    (folder / "pip-25.0.dist-info").mkdir()
    (folder / "pip-25.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: pip\nVersion: 25.0\n")
    information = folder / "geodtr_export-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: geodtr-export\nVersion: 0.1.0\n")
    if recorded is not None:
        (information / "direct_url.json").write_text(json.dumps(recorded))
    monkeypatch.setattr(installation, "distributions", partial(distributions, path=[str(folder)]))


def wanted(hint: str) -> list[str]:
    """What the command installs: the arguments behind `install`."""
    words = shlex.split(hint)
    return words[words.index("install") + 1 :]


def test_an_editable_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    installed_from(recorded, tmp_path, monkeypatch)
    assert wanted(install_hint("geo")) == ["--editable", f"{tmp_path}[geo]"]


def test_a_folder_whose_name_has_a_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my checkout"
    folder.mkdir()
    installed_from({"url": folder.as_uri(), "dir_info": {}}, tmp_path, monkeypatch)
    assert wanted(install_hint("cpu", "geo")) == [f"{folder}[cpu,geo]"]


def test_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "geodtr_export-0.1.0-py3-none-any.whl"
    wheel.touch()
    installed_from({"url": wheel.as_uri(), "archive_info": {}}, tmp_path, monkeypatch)
    assert wanted(install_hint("geo")) == [f"{wheel}[geo]"]


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from({"url": (tmp_path / "gone").as_uri(), "dir_info": {}}, tmp_path, monkeypatch)
    assert "install '.[geo]' in a checkout" in install_hint("geo")


def test_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versioned = {"vcs": "git", "requested_revision": "main", "commit_id": "0" * 40}
    installed_from({"url": "https://example.org/g.git", "vcs_info": versioned}, tmp_path, monkeypatch)
    assert wanted(install_hint("geo")) == ["geodtr-export[geo] @ git+https://example.org/g.git@main"]


@pytest.mark.parametrize("recorded", [None, {}], ids=["index", "empty record"])
def test_an_index(recorded: Recorded | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from(recorded, tmp_path, monkeypatch)
    assert wanted(install_hint("geo")) == ["geodtr-export[geo]"]


def test_pip_belongs_to_this_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "pip"
    other.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pip("install") == f"{sys.executable} -m pip install"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert pip("install") == "pip install"


def test_an_environment_of_uv_has_no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(installation, "distributions", lambda **_: iter(()))
    assert pip("install") == f"uv pip install --python {sys.executable}"


def test_a_hint_leaves_setuptools_unchanged() -> None:
    """PyTorch's compiler imports setuptools, which fails in a process that has looked for the module pip."""
    script = "from geodtr.runtime.installation import install_hint; install_hint('cpu'); import setuptools"
    subprocess.run([sys.executable, "-c", script], env={"PATH": ""}, check=True)
