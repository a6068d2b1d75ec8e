"""Check the used TensorRT and CUDA names, signatures and types against the vendors' packages, without a GPU:

    python tools/check_tensorrt.py

TensorRT's Python bindings are on the package index as small wheels; the libraries behind them are not. Empty libraries
with the same names, built here, are enough to import the bindings and generate type stubs. mypy checks this project's
files against the stubs of each version. Anything in the tests' fake that a version lacks is a fault too. CUDA calls are
compared with cuda-bindings by name and number of arguments, and with pycuda's sources by name. Nothing is executed.
Needs gcc, nm, pip and the network; exits with 1 if there is a fault.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TENSORRT = (
    ("tensorrt_cu12_bindings", "10.3.0"),
    ("tensorrt_cu12_bindings", "10.16.1.11"),
    ("tensorrt_cu13_bindings", "11.4.0.106"),
)
"""JetPack 6, JetPack 7.2, and the current release."""
CUDA_BINDINGS = ("12.9.4", "13.0.3", "13.5.0")
PYCUDA = "2026.1"
STUBGEN = "pybind11-stubgen==3.0.0"
NEWER = (("HardwareCompatibilityLevel", "SAME_COMPUTE_CAPABILITY"), ("OnnxParserFlag", "ADJUST_FOR_DLA"))
"""Names that runtime/engines/tensorrt/versions.py checks with hasattr."""
USERS = (
    "geodtr.runtime.engines.tensorrt.runner",
    "geodtr.runtime.engines.tensorrt.plan",
    "geodtr.runtime.engines.tensorrt.versions",
    "geodtr.export.backends.tensorrt.builder",
    "geodtr.export.backends.tensorrt.network",
    "geodtr.export.backends.tensorrt.parser",
    "geodtr.export.backends.tensorrt.rtx",
    "geodtr.export.backends.tensorrt.watched",
)
FAKE, FAKE_CUDA = ROOT / "tests" / "support" / "fake_tensorrt.py", ROOT / "tests" / "support" / "fake_cuda.py"
CUDA = ROOT / "runtime" / "engines" / "tensorrt" / "cuda.py"
FAKES_OWN = re.compile(r"^_(?!_init__)|^fake|^Fake")
"""Names of the fake that do not exist in TensorRT."""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _pip("install", "--quiet", "--target", work / "stubgen", STUBGEN)
        faults = 0
        for package, version in TENSORRT:
            stubs = write_stubs(work / version, package, version, work / "stubgen")
            faults += report(f"{package} {version}", [*type_check(work / version, stubs), *fake_faults(stubs)])
        versions = [work / version / "stubs" for _, version in TENSORRT]
        faults += report("names of newer versions", newer_faults(versions[0], versions[-1]))
        for version in CUDA_BINDINGS:
            faults += report(f"cuda-bindings {version}", check_cuda_bindings(work / version, version))
        faults += report(f"pycuda {PYCUDA}", check_pycuda(work / "pycuda"))
    return 1 if faults else 0


def report(what: str, faults: list[str]) -> int:
    print(f"{what}: {'ok' if not faults else f'{len(faults)} faults'}", flush=True)
    for fault in faults:
        print(f"  {fault}")
    return len(faults)


def write_stubs(work: Path, package: str, version: str, stubgen: Path) -> Path:
    """Generate stubs of a TensorRT version as package `tensorrt`."""
    wheel = _download(work, f"{package}=={version}")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work / "wheel")
    package_dir = work / "wheel" / "tensorrt"
    (work / "wheel" / "tensorrt_bindings").rename(package_dir)
    libraries = write_empty_libraries(package_dir / "tensorrt.so", work / "libraries")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": f"{work / 'wheel'}:{stubgen}"}
    command = [sys.executable, "-m", "pybind11_stubgen", "tensorrt", "-o", str(work / "stubs"), "--ignore-all-errors"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    for path in (work / "stubs" / "tensorrt").glob("*.pyi"):
        path.write_text(corrected(path.read_text()))
    return work / "stubs"


def corrected(stub: str) -> str:
    """Correct a generated stub.

    DataType `bool` hides Python's, tuples convert to Dims, serialised memory is a buffer, and two signatures of pybind
    are invalid in Python.
    """
    for pattern, better in (
        (r"(->|:) bool\b", r"\1 builtins.bool"),
        (r"typing\.SupportsInt\b", "int"),
        (r"\b(min|opt|max|shape): Dims\b", r"\1: Dims | tuple[int, ...]"),
        (r"(\nclass Dims:\n)", r"\1    def __iter__(self) -> typing.Iterator[int]: ...\n"),
        (r"(\nclass IHostMemory:\n)", r"\1    def __buffer__(self, flags: int, /) -> memoryview: ...\n"),
        (r"\bin: ", "in_: "),
        (r"(scale|shift|power): Weights = None", r"\1: Weights"),
        (r"(from __future__ import annotations\n)", r"\1import builtins\n"),
    ):
        stub = re.sub(pattern, better, stub)
    return stub


def write_empty_libraries(bindings: Path, out: Path) -> Path:
    """Build empty libraries with the symbols that `bindings` needs from NVIDIA's libraries."""
    out.mkdir()
    undefined = subprocess.run(["nm", "-D", "--undefined-only", bindings], check=True, capture_output=True, text=True)
    symbols = [line.split()[-1] for line in undefined.stdout.splitlines() if "@" not in line and " U " in line]
    vendors = [name for name in symbols if re.search(r"Infer|NvOnnx|PluginRegistry", name)]
    source = out / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in vendors))
    for name in re.findall(rb"libnv\w+\.so\.\d+", bindings.read_bytes()):
        library = out / name.decode()
        subprocess.run(["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", library, source], check=True)
    return out


def type_check(work: Path, stubs: Path) -> list[str]:
    """mypy's complaints about the files that use TensorRT."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary"]
    # Without the package, subclasses of its (untyped) classes need an ignore comment, which is unused here.
    command += [
        "--no-warn-unused-ignores",
        "--no-warn-unreachable",
        "--hide-error-context",
        "--cache-dir",
        str(work / "cache"),
    ]
    for module in USERS:
        command += ["-m", module]
    result = _run(command, work, MYPYPATH=str(stubs))
    if result.returncode > 1:  # mypy could not read a file
        return [result.stdout + result.stderr]
    return [line for line in result.stdout.splitlines() if "error:" in line and "stubs/" not in line]


def fake_faults(stubs: Path) -> list[str]:
    """Classes, members and parameters of the fake that the real module does not have."""
    real = surface(*(path.read_text() for path in sorted((stubs / "tensorrt").glob("*.pyi"))))
    faults = []
    for name, members in surface(FAKE.read_text()).items():
        if FAKES_OWN.search(name):
            continue
        theirs = real.get(name)
        if theirs is None:
            faults.append(f"the fake's {name} does not exist")
            continue
        for member, (parameters, *_) in members.items():
            if FAKES_OWN.search(member):
                continue
            forms = theirs.get(member, [])
            if member == "__init__" and not forms:
                continue  # TensorRT creates these objects, not this project
            if not forms:
                faults.append(f"the fake's {name}.{member} does not exist")
            elif parameters not in [form and form[: len(parameters or ())] for form in forms]:
                faults.append(f"the fake's {name}.{member} takes {parameters}, the real one {forms}")
    return faults


def newer_faults(oldest: Path, newest: Path) -> list[str]:
    """Names checked with hasattr must exist in the newest version, but not in the oldest."""
    faults = []
    for name, member in NEWER:
        held = [
            member in surface((stubs / "tensorrt" / "tensorrt.pyi").read_text())[name] for stubs in (oldest, newest)
        ]
        if held != [False, True]:
            faults.append(f"{name}.{member}: in the oldest {held[0]}, in the newest {held[1]}")
    return faults


Surface = dict[str, dict[str, list[tuple[str, ...] | None]]]
"""Class -> member -> overloads: the names of a method's parameters, or None if it is not a method."""


def surface(*sources: str) -> Surface:
    """The definitions in sources or stubs. Functions outside of classes are listed under "module"."""
    definitions: Surface = {"module": {}}
    for source in sources:
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef):
                members = definitions.setdefault(node.name, {})
                for inner in node.body:
                    _add(members, inner)
            elif isinstance(node, ast.FunctionDef):
                _add(definitions["module"], node)
    return definitions


def _add(members: dict[str, list[tuple[str, ...] | None]], node: ast.stmt) -> None:
    if isinstance(node, ast.FunctionDef):
        is_property = any(not isinstance(entry, ast.Name) or entry.id == "property" for entry in node.decorator_list)
        is_overload = any("overload" in ast.unparse(entry) for entry in node.decorator_list)
        method = not is_property or is_overload
        parameters = tuple(entry.arg for entry in node.args.args if entry.arg != "self")
        members.setdefault(node.name, []).append(parameters if method else None)
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Name):
                members.setdefault(target.id, []).append(None)
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        members.setdefault(node.target.id, []).append(None)


def check_cuda_bindings(work: Path, version: str) -> list[str]:
    """Calls in tensorrt/cuda.py that cuda-bindings does not have, or that take another number of arguments."""
    _pip("install", "--quiet", "--target", work, f"cuda-bindings=={version}")
    script = (
        "import json, sys\n"
        "from cuda.bindings import runtime\n"
        "print(json.dumps({name: (getattr(runtime, name).__doc__ or '').split('\\n')[0] for name in dir(runtime)}))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(work)}, check=True, capture_output=True
    )
    real: dict[str, str] = json.loads(result.stdout)
    faults = []
    for name, arguments in (*cuda_uses(), *fake_cuda_functions()):
        signature = re.match(rf"{name}\((.*?)\)", real.get(name, ""))
        if name not in real:
            faults.append(f"{name} does not exist")
        elif arguments is not None and signature is not None:
            wanted = [part for part in signature[1].split(",") if part.strip()]
            if len(wanted) != arguments:
                faults.append(f"{name} is called with {arguments} arguments, but takes {real[name]}")
        elif arguments is not None:
            faults.append(f"{name} has no documented signature")
    return faults


def fake_cuda_functions() -> Iterator[tuple[str, int | None]]:
    """Each function of the fake CUDA runtime, with its number of parameters."""
    for name, (parameters, *_) in surface(FAKE_CUDA.read_text())["module"].items():
        if name.startswith("cuda") and parameters is not None:
            yield name, len(parameters)


def cuda_uses() -> Iterator[tuple[str, int | None]]:
    """Each used attribute of the CUDA runtime, with the number of arguments of a direct call."""
    tree = ast.parse(CUDA.read_text())
    called = {id(node.func): len(node.args) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr.startswith("cuda")
            and ast.unparse(node.value).endswith("cudart")
        ):
            yield node.attr, called.get(id(node))


def check_pycuda(work: Path) -> list[str]:
    """Used names that pycuda's sources do not define. Building pycuda would need CUDA."""
    archive = _download(work, f"pycuda=={PYCUDA}", "--no-binary", ":all:", "--no-build-isolation")
    with tarfile.open(archive) as opened:
        opened.extractall(work, filter="data")
    (root,) = work.glob("pycuda-*/")
    sources = "".join(
        path.read_text(errors="replace")
        for path in (*root.glob("src/wrapper/*.cpp"), *root.glob("src/cpp/cuda.hpp"), root / "pycuda" / "driver.py")
    )
    defined = set(re.findall(r"(?:DEF_SIMPLE_\w+|DECLARE_EXC)\((\w+)|\"(\w+)\"", sources))
    names = {name for pair in defined for name in pair}
    return [f"{name} does not exist" for name in sorted(pycuda_uses() - names)]


def pycuda_uses() -> set[str]:
    """Used attributes of pycuda's driver module and of its objects."""
    tree = ast.parse(CUDA.read_text())
    uses = set()
    for cls in ast.walk(tree):
        if isinstance(cls, ast.ClassDef) and cls.name.startswith("_PyCuda"):
            for node in ast.walk(cls):
                if isinstance(node, ast.Attribute) and re.search(
                    r"(driver|_stream|device|_context|Context)$", ast.unparse(node.value)
                ):
                    uses.add(node.attr)
    return uses


def _download(work: Path, *what: str) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    _pip("download", "--quiet", "--no-deps", "--dest", work / "download", *what)
    (file,) = (work / "download").iterdir()
    return file


def _run(command: Sequence[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command and capture its output; does not raise on failure."""
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, check=False, capture_output=True, text=True
    )


def _pip(*arguments: object) -> None:
    words = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = _run(words, ROOT)
    if done.returncode:
        sys.exit(f"pip {' '.join(map(str, arguments))} failed:\n{done.stderr}")


if __name__ == "__main__":
    for tool in ("gcc", "nm"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is required but not installed.")
    sys.exit(main())
