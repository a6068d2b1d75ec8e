"""A build request as the command line `geodtr-export build-engine ...`, and back.

Both directions read one declaration: the options at the fields of the request's dataclasses.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geodtr.export.backends.options import BACKEND_OPTIONS, backend_words
from geodtr.export.build.compact import Compact
from geodtr.export.build.precisions import Auto, Calibration, Float, Plan, Quantized, Recompile, needed
from geodtr.export.build.request import BuildRequest, FastestBackend
from geodtr.export.options import Option, flag_of, from_given, options_of, words
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import BackendAsked, PrecisionAsked

PROGRAM = ("geodtr-export", "build-engine")

_OF_PRECISION: dict[PrecisionAsked, tuple[type, ...]] = {
    "fp32": (Float,),
    "fp16": (Float,),
    "int8": (Quantized, Calibration),
    "fp8": (Quantized, Calibration),
    "auto": (Auto, Calibration),
    "same": (Recompile,),
}
"""Whose options each precision takes."""


def command_line(request: BuildRequest) -> str:
    """The command line that asks for the same build, quoted for a shell: what differs from the defaults, paths as they
    were given.
    """
    source = str(request.source)
    line = [*PROGRAM, f"./{source}" if source.startswith("-") else source]
    line += [*backend_words(request.backend), "--precision", request.plan.argument]
    if isinstance(request.plan, Quantized | Auto):
        line += words(request.plan.calibration)
    compact = [] if request.compact is None else words(request.compact)
    return shlex.join([*line, *words(request.plan), *compact, *words(request), "--out", str(request.out)])


def request_of(
    source: Path, out: Path, backend: BackendAsked, precision: PrecisionAsked, options: Mapping[str, Any]
) -> BuildRequest:
    """The request that a command line asks for; `options` holds, by field, those that the user gave.

    Raises ConfigError for an option that is not for this backend or precision, and for a needed one that is missing.
    """
    _check_backend(backend, options)
    _check_precision(precision, options)
    calibration = from_given(Calibration, options) if "data" in options else None
    plan: Plan
    if precision == "same":
        plan = from_given(Recompile, options)
    elif precision == "auto":
        if "recall_on" not in options:
            raise ConfigError("Choosing blocks by recall needs pairs to measure it on: add --recall-on SPEC.")
        plan = from_given(Auto, options, calibration=needed(calibration, precision))
    elif precision in ("fp32", "fp16"):
        plan = Float(precision)
    else:
        plan = from_given(Quantized, options, calibration=needed(calibration, precision), precision=precision)
    for present, missing in (("descriptor_size", "--compact-on SPEC"), ("compact_on", "--descriptor-size N")):
        if present in options and not {"descriptor_size", "compact_on"} <= options.keys():
            raise ConfigError(f"A projection has a size, and pairs that it is fitted to: add {missing}.")
    compact = from_given(Compact, options) if "compact_on" in options else None
    target = FastestBackend if backend == "auto" else BACKEND_OPTIONS[backend]
    request: BuildRequest = from_given(
        BuildRequest, options, source=source, out=out, backend=from_given(target, options), plan=plan, compact=compact
    )
    return request


def _check_backend(backend: BackendAsked, options: Mapping[str, Any]) -> None:
    owners: dict[str, list[str]] = {}
    declared: dict[str, tuple[str, Option]] = {}
    for name, of in BACKEND_OPTIONS.items():
        for each, how in options_of(of):
            owners.setdefault(each.name, []).append(name)
            declared[each.name] = (flag_of(each), how)
    foreign = [name for name in declared if name in options and backend not in owners[name]]
    if foreign:
        theirs = dict.fromkeys(owner for name in foreign for owner in owners[name])
        instead = [how.instead for _, how in (declared[name] for name in foreign) if how.instead]
        raise ConfigError(
            f"{', '.join(declared[name][0] for name in foreign)}: for --backend {' or '.join(theirs)}, not {backend}. "
            f"{' '.join(['Leave out what is not for it.', *dict.fromkeys(instead)])}"
        )


def _check_precision(precision: PrecisionAsked, options: Mapping[str, Any]) -> None:
    taken = {each.name for of in _OF_PRECISION[precision] for each, _ in options_of(of)}
    known = {each.name: flag_of(each) for of in (Calibration, Quantized, Auto) for each, _ in options_of(of)}
    if precision == "fp8":
        taken.discard("dialect")
    foreign = [flag for name, flag in known.items() if name in options and name not in taken]
    if precision == "same" and "require_faster" in options:
        foreign.append("--require-faster")
    if foreign:
        raise ConfigError(f"{', '.join(foreign)}: not for --precision {precision}. Leave out what is not for it.")
