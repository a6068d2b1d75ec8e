"""How this package was installed, so that a message names the command that installs an extra here.

The name `geodtr-export` is on no package index that can be relied on: an installation from a checkout, a wheel or a
repository gets its extras from there.
"""

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from geodtr.runtime.errors import MissingDependency

NAME = "geodtr-export"
EXTRA_OF = {
    "torch": "train",
    "torchvision": "train",
    "safetensors": "train",
    "scipy": "train",
    "matplotlib": "plots",
    "tensorboard": "train",
    "tomli_w": "train",
    "cryptography": "sign",
    "starlette": "serve",
    "uvicorn": "serve",
    "httptools": "serve",
    "python_multipart": "serve",
    "prometheus_client": "serve",
    "onnx": "export",
    "onnxscript": "export",
    "onnxslim": "export",
    "onnx_ir": "export",
}
"""The extra that brings a package which the base installation does not have."""


@contextmanager
def naming_extras() -> Iterator[None]:
    """Raise MissingDependency, with the command that installs it, where a package of an extra is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise MissingDependency(f"This needs {error.name}, which is not installed: {install_hint(extra)}") from error


@contextmanager
def needing(what: str, extra: str) -> Iterator[None]:
    """Raise MissingDependency, `what` needs which package, with the command that installs `extra`, where that package
    cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise MissingDependency(f"{what}, which cannot be imported ({error}): {install_hint(extra)}") from None


def install_hint(*extras: str, upgrade: bool = False) -> str:
    """The command that installs `extras` into this environment, from where the package was installed; `upgrade`: the
    newest version there.
    """
    names = f"[{','.join(extras)}]" if extras else ""
    install = pip("install --upgrade" if upgrade else "install")
    source = _source()
    url = str(source.get("url", ""))
    editable = ""
    if not url:
        wanted = NAME + names
    elif urlsplit(url).scheme == "file":
        path = Path(url2pathname(urlsplit(url).path))
        if not path.exists():
            return f"{install} '.{names}' in a checkout of {NAME} ({path}, where it was installed from, is gone)"
        wanted = f"{path}{names}"
        editable = "--editable " if source.get("dir_info", {}).get("editable") else ""
    else:
        version_control = source.get("vcs_info", {})
        prefix = f"{version_control['vcs']}+" if version_control else ""
        revision = version_control.get("requested_revision")
        wanted = f"{NAME}{names} @ {prefix}{url}{f'@{revision}' if revision else ''}"
    return f"{install} {editable}{shlex.quote(wanted)}"


def pip(command: str) -> str:
    """A command of pip for this environment: by name where that pip is on the path, else by this Python."""
    program = shutil.which("pip")
    if program and Path(program).parent == Path(sys.executable).parent:
        return f"pip {command}"
    python = shlex.quote(sys.executable)
    # uv makes environments without pip; in pipx's it is there, shared by all of them. Looked up by its metadata:
    # setuptools takes a look for the module itself as pip running, and PyTorch's compiler then fails in this process.
    has_pip = next(iter(distributions(name="pip")), None) is not None
    return f"{python} -m pip {command}" if has_pip else f"uv pip {command} --python {python}"


@cache
def _source() -> dict[str, Any]:
    """Where the installer got the package from (PEP 610); empty: from an index, or this was not recorded."""
    # In a checkout the build's egg-info comes first and records nothing.
    texts = (distribution.read_text("direct_url.json") for distribution in distributions(name=NAME))
    document: dict[str, Any] = json.loads(next(filter(None, texts), "{}"))
    return document
