"""The commands that build a bundle again: what whoever refuses one gives as the way out.

Knows manifests and the command line's options; runs nothing.
"""

import os
import re
import shlex
from pathlib import Path

from geodtr.runtime.manifest import FILE_NAME, BackendEntry, Manifest, QuantisationEntry
from geodtr.runtime.names import BACKENDS, PRECISIONS, Backend, Dialect, asked_as


def rebuild(bundle: Path, manifest: Manifest, *, from_graphs: bool, checkpoint: Path | None = None) -> str:
    """The command that builds `bundle` again beside it: from its own typed graphs, or, where those are damaged or not
    for this machine, from its `checkpoint` (where that is not at hand: CKPT, with its SHA-256 as a comment).

    It names the backend that the bundle has, also where that was chosen by `--backend auto`: the bundle can be built
    again, a measurement may come out differently.
    """
    backend, made, tiles = manifest.backend, manifest.quantisation, manifest.source.raw_tiles
    out = f"{bundle}-rebuilt"
    source = "CKPT" if checkpoint is None else str(checkpoint)
    unknown = f"  # CKPT: the checkpoint whose SHA-256 is {manifest.source.sha256[:16]}..."
    comment = unknown if checkpoint is None else ""
    if backend.name == "onnx":
        return _export(source, out, tiles) + comment
    if from_graphs:
        return recompile_command(bundle, backend, None if made is None else made.dialect)
    asked = [*_target(backend), "--precision", "auto" if manifest.precision == "mixed" else manifest.precision]
    asked += [] if made is None else _as_quantised(made)
    return _built(bundle, source, asked, tiles, out) + comment


def rebuild_unread(bundle: Path) -> str:
    """The command that builds `bundle` anew where its manifest cannot be read, as far as that one's text and the names
    of the files beside it tell. What they do not is in capitals, and explained behind it.
    """
    file = bundle / FILE_NAME
    text = file.read_bytes().decode(errors="replace") if os.access(file, os.R_OK) else ""

    def told(pattern: str) -> str | None:
        found = re.search(pattern, text)
        return None if found is None else found.group(1)

    checkpoint, side = told(r'"source":\s*\{\s*"sha256":\s*"([0-9a-f]{64})"'), told(r'"raw_tiles":\s*([1-9]\d*)')
    backend = told(rf'"backend":\s*\{{\s*"name":\s*"(onnx|{"|".join(BACKENDS)})"') or _backend_by_files(bundle)
    precision = told(rf'"precision":\s*"({"|".join(PRECISIONS)})"')
    tiles, out = None if side is None else int(side), f"{bundle}-rebuilt"
    why = ["CKPT: the checkpoint" + ("" if checkpoint is None else f" whose SHA-256 is {checkpoint[:16]}...")]
    if backend == "onnx":
        return f"{_export('CKPT', out, tiles)}  # {why[0]}"
    asked = ["--backend", backend or "BACKEND", "--precision", "PRECISION"]
    if backend is None:
        why.append(f"BACKEND: {', '.join(BACKENDS)}")
    if precision is None:
        why.append(f"PRECISION: {', '.join(map(asked_as, PRECISIONS))} (those below fp16 want --calibration SPEC)")
    else:
        asked[-1] = "auto" if precision == "mixed" else precision
    if precision not in (None, "fp32", "fp16"):
        asked += ["--calibration", "SPEC"] + ["--recall-on", "SPEC"] * (precision == "mixed")
        why.append("SPEC: a data set of such images")
    return f"{_built(bundle, 'CKPT', asked, tiles, out)}  # {'; '.join(why)}"


def _backend_by_files(bundle: Path) -> Backend | None:
    """Each leaves its own kind of compiled file, or none."""
    kinds: dict[str, Backend] = {
        "*.plan": "tensorrt",
        "*.rtx": "tensorrt-rtx",
        "*.blob": "openvino",
        "*.optimised.onnx": "onnxruntime",
    }
    return next((backend for pattern, backend in kinds.items() if any(bundle.glob(pattern))), None)


def _built(bundle: Path, source: str, asked: list[str], raw_tiles: int | None, out: str) -> str:
    """Building from the checkpoint `source`: in two steps where its graphs take tiles as they are."""
    first = ""
    if raw_tiles is not None:
        graphs = f"{bundle}-graphs"
        first = f"{_export(source, graphs, raw_tiles)} && "
        source = graphs
    return first + shlex.join(["geodtr-export", "build-engine", source, *asked, "--out", out])


def _export(source: str, out: str, raw_tiles: int | None) -> str:
    tiles = [] if raw_tiles is None else ["--raw-tiles", str(raw_tiles)]
    return shlex.join(["geodtr-export", "export", source, *tiles, "--out", out])


def recompile_command(bundle: Path, backend: BackendEntry, dialect: Dialect | None) -> str:
    """The command that compiles the bundle's own graphs again, as they were compiled, on the machine it is run on."""
    return _recompiled(bundle, _target(backend), dialect)


def rebuild_for_cpu(bundle: Path, manifest: Manifest) -> str:
    """The command that compiles the bundle's own graphs for the processor."""
    made = manifest.quantisation
    return _recompiled(bundle, ["--backend", "onnxruntime"], None if made is None else made.dialect)


def choose_again_command(bundle: Path, manifest: Manifest) -> str:
    """The command that compiles the bundle's own graphs with every backend of the machine it is run on, and keeps the
    fastest.
    """
    made = manifest.quantisation
    return _recompiled(bundle, ["--backend", "auto"], None if made is None else made.dialect)


def _recompiled(bundle: Path, target: list[str], dialect: Dialect | None) -> str:
    same = ["--precision", "same"] + ([] if dialect is None else ["--dialect", dialect])
    command = ["geodtr-export", "build-engine", str(bundle), *target, *same]
    return shlex.join([*command, "--out", f"{bundle}-rebuilt"])


def _target(backend: BackendEntry) -> list[str]:
    """The options that ask for the same backend, used in the same way."""
    asked = ["--backend", backend.name] + ["--provider", backend.provider] * (backend.provider != "cpu")
    how = backend.tensorrt
    if how is None:
        return asked
    values: tuple[tuple[str, object], ...] = (
        ("--min-batch", how.min_batch),
        ("--opt-batch", how.opt_batch),
        ("--max-batch", how.max_batch),
        ("--workspace", how.workspace),
        ("--optimisation-level", how.optimisation_level),
        ("--hardware", None if how.hardware == "same-gpu" else how.hardware),
        ("--dla", how.dla_core),
        *(("--compute-capability", each) for each in how.compute_capabilities),
    )
    flags = {
        "--version-compatible": how.version_compatible,
        "--strip": how.stripped,
        "--refittable": how.refittable,
        "--expose-reductions": how.expose_reductions,
    }
    asked += [word for option, value in values if value is not None for word in (option, str(value))]
    return asked + [flag for flag, wanted in flags.items() if wanted]


def _as_quantised(made: QuantisationEntry) -> list[str]:
    """The options that ask for the same images, the same ranges and the same limits."""
    method, *percentile = made.calibration.method.split()
    asked = ["--calibration", made.calibration.data, "--images", str(made.calibration.images)]
    asked += ["--select", made.calibration.choice, "--seed", str(made.calibration.seed), "--method", method] + [
        "--percentile",
        *percentile,
    ] * bool(percentile)
    if made.search is not None:
        asked += ["--recall-on", made.search.data, "--tolerance", str(made.search.tolerance)]
        asked += ["--speed-batch", str(made.search.batch)] + ["--accept-undecided"] * made.search.accepted
    return asked + ([] if made.keep_cosine is None else ["--keep-cosine", str(made.keep_cosine)])
