"""The command that builds a bundle again: the one that its manifest records, or a change of it.

Manifests of schema 3 record none: for those it is a plain line with backend and precision. Runs nothing.
"""

import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from geodtr.runtime.files.documents import decode_json, read_document
from geodtr.runtime.manifest import FILE_NAME, BackendEntry, Manifest
from geodtr.runtime.names import BACKENDS, PRECISIONS, Backend, Dialect, asked_as

PROGRAM = "geodtr-export"
_CHECKPOINT = "CKPT"


def rebuild_command(
    bundle: Path, manifest: Manifest, *, source: str | None = None, changes: Mapping[str, str | None] | None = None
) -> str:
    """The command that makes `bundle` again, beside it, of what it was made of, or of the checkpoint `source`.
    `changes`: options with another value, None for one that is left out.
    """
    words = _words(manifest.command)
    if not words or ((source is not None or changes) and _recompiles(words)):
        words = _plain(manifest)
    words = _with_kept_backend(words, manifest.backend)
    first, tiles = "", manifest.source.raw_tiles
    if source is not None:
        words[2] = source
        if tiles is not None and words[1] == "build-engine":  # its graphs take tiles as they are
            words[2] = f"{bundle}-graphs"
            first = f"{export_command(source, words[2], tiles)} && "
        if manifest.projection is not None and "--descriptor-size" not in words:  # its graphs had been projected before
            words = _changed(words, "--descriptor-size", str(manifest.ground.spec.descriptor_size))
            words = _changed(words, "--compact-on", manifest.projection.data)
    for option, value in (changes or {}).items():
        words = _changed(words, option, value)
    why = f"  # the checkpoint's SHA-256 is {manifest.source.sha256[:16]}..."
    return first + shlex.join([*words[:-1], _beside(bundle)]) + (why if source in (None, _CHECKPOINT) else "")


def from_checkpoint(bundle: Path, manifest: Manifest) -> str:
    """The command that exports the graphs again as well, with CKPT in the place of the checkpoint."""
    return rebuild_command(bundle, manifest, source=_CHECKPOINT)


def recompile_command(bundle: Path, backend: BackendEntry, dialect: Dialect | None = None) -> str:
    """The command that compiles the bundle's own graphs again, as they were compiled, on the machine it is run on."""
    return _recompiled(bundle, _options(backend), dialect)


def recompile_for(bundle: Path, manifest: Manifest, backend: str) -> str:
    """The command that compiles the bundle's own graphs for another backend, by name."""
    return _recompiled(bundle, ["--backend", backend], _dialect(manifest))


def recompile_bundle(bundle: Path, manifest: Manifest) -> str:
    """`recompile_command`, with the dialect that the graphs have; an exported bundle is exported again."""
    if manifest.backend.name == "onnx":
        return rebuild_command(bundle, manifest)
    return recompile_command(bundle, manifest.backend, _dialect(manifest))


def float32_command(bundle: Path, manifest: Manifest, source: str | None) -> str:
    """The command that builds float32 engines for the same backend, of the checkpoint `source`."""
    words = [PROGRAM, "build-engine", "", *_options(manifest.backend), "--precision", "fp32", "--out", ""]
    plain = msgspec.structs.replace(manifest, command=shlex.join(words))
    return rebuild_command(bundle, plain, source=source or _CHECKPOINT)


def unread_command(bundle: Path) -> str:
    """The command that builds `bundle` again where its manifest cannot be read: the one recorded in its text, or a
    plain line of what text and file names tell. What they do not is in capitals, and explained behind it.
    """
    file = bundle / FILE_NAME
    text = ""
    with suppress(OSError):
        text = read_document(file).decode(errors="replace")

    def recorded_in_text(pattern: str) -> str | None:
        match = re.search(pattern, text)
        return None if match is None else match.group(1)

    recorded = recorded_in_text(r'"command":\s*("(?:[^"\\]|\\.)*")')
    if recorded is not None:
        with suppress(msgspec.DecodeError, ValueError):  # of a file that is not JSON, or a command that is no command
            words = _words(decode_json(recorded, str))
            if words:
                return shlex.join([*words[:-1], _beside(bundle)])
    backend = recorded_in_text(rf'"backend":\s*\{{\s*"name":\s*"({"|".join(BACKENDS)})"') or _backend_by_files(bundle)
    precision = recorded_in_text(rf'"precision":\s*"({"|".join(PRECISIONS)})"')
    why = ["CKPT: the checkpoint"]
    if backend is None:
        why.append(f"BACKEND: {', '.join(BACKENDS)}")
    if precision is None:
        why.append(f"PRECISION: {', '.join(map(asked_as, PRECISIONS))} (those below fp16 want --calibration SPEC)")
    argument = "PRECISION" if precision is None else "auto" if precision == "mixed" else precision
    words = _line(_CHECKPOINT, ["--backend", backend or "BACKEND"], argument, _beside(bundle))
    return f"{shlex.join(words)}  # {'; '.join(why)}"


def export_command(checkpoint: str, out: str, raw_tiles: int | None) -> str:
    """The command that exports a checkpoint; `raw_tiles`: the side of the square tiles that its aerial graph takes."""
    tiles = [] if raw_tiles is None else ["--raw-tiles", str(raw_tiles)]
    return shlex.join([PROGRAM, "export", checkpoint, *tiles, "--out", out])


def _words(command: str | None) -> list[str]:
    """The words of a recorded command; none where there is none that can be changed."""
    words = [] if command is None else shlex.split(command)
    return words if len(words) > 4 and words[0] == PROGRAM and words[-2] == "--out" else []


def _recompiles(words: Sequence[str]) -> bool:
    """Whether a command compiles a bundle's own graphs: with other settings it would give no others."""
    return ("--precision", "same") in itertools.pairwise(words)


def _plain(manifest: Manifest) -> list[str]:
    """A line with backend and precision, for a manifest that records no command."""
    if manifest.backend.name == "onnx":
        return shlex.split(export_command(_CHECKPOINT, "OUT", manifest.source.raw_tiles))
    entry = manifest.quantisation
    options = _options(manifest.backend) + ([] if entry is None else ["--calibration", entry.calibration.data])
    if entry is not None and entry.search is not None:
        options += ["--recall-on", entry.search.data]
    return _line(_CHECKPOINT, options, asked_as(manifest.precision), "OUT")


def _line(source: str, options: Sequence[str], precision: str, out: str) -> list[str]:
    return [PROGRAM, "build-engine", source, *options, "--precision", precision, "--out", out]


def _recompiled(bundle: Path, options: list[str], dialect: Dialect | None) -> str:
    options = options + ([] if dialect is None else ["--dialect", dialect])
    return shlex.join(_line(str(bundle), options, "same", _beside(bundle)))


def _options(backend: BackendEntry) -> list[str]:
    """Those that ask for the backend in the same way; a manifest of schema 3 records its name alone."""
    return list(backend.options) or ["--backend", backend.name]


def _dialect(manifest: Manifest) -> Dialect | None:
    return None if manifest.quantisation is None else manifest.quantisation.dialect


def _with_kept_backend(words: list[str], backend: BackendEntry) -> list[str]:
    """The backend that was kept in the place of `--backend auto`: the bundle can be built again, a measurement may come
    out differently.
    """
    if ("--backend", "auto") not in itertools.pairwise(words):
        return words
    place = words.index("--backend")
    words = [*words[:place], *_options(backend), *words[place + 2 :]]
    return words if "--require-faster" in words else _changed(words, "--speed-batch", None)  # nothing else is timed


def _changed(words: list[str], option: str, value: str | None) -> list[str]:
    if option in words:
        place = words.index(option)
        words = words[:place] + words[place + 2 :]
    return words if value is None else [*words[:-2], option, value, *words[-2:]]


def _beside(bundle: Path) -> str:
    return f"{bundle}-rebuilt"


def _backend_by_files(bundle: Path) -> Backend | None:
    """Each leaves its own kind of compiled file, or none."""
    kinds: dict[str, Backend] = {
        "*.plan": "tensorrt",
        "*.rtx": "tensorrt-rtx",
        "*.blob": "openvino",
        "*.optimised.onnx": "onnxruntime",
    }
    return next((backend for pattern, backend in kinds.items() if any(bundle.glob(pattern))), None)
