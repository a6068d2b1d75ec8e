"""The command that this project exists for: build-engine."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from geodtr.cli.build.backend_tables import show_choice
from geodtr.cli.build.precision_tables import against_fp32, draw_search, int8_share, show_search
from geodtr.cli.console import megabytes, messages, track, warn
from geodtr.cli.dataclass_options import with_options
from geodtr.cli.options import argument, flag, out_option
from geodtr.export.backends.options import OnnxRuntimeOptions, TensorRtOptions, TensorRtRtxOptions
from geodtr.export.build.command_line import request_of
from geodtr.export.build.compact import Compact
from geodtr.export.build.precisions import Auto, Calibration, Quantized
from geodtr.export.build.request import BuildRequest
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.names import BackendAsked, PrecisionAsked

if TYPE_CHECKING:
    from geodtr.runtime.bundle import Bundle

_SEARCH = "Search by recall: --precision auto"
_PANELS: dict[str | None, tuple[type, ...]] = {
    "Calibration: --precision int8, fp8, auto": (Calibration, Quantized),
    _SEARCH: (Auto,),
    "Shorter descriptors": (Compact,),
    "Speed": (BuildRequest,),
    "ONNX Runtime": (OnnxRuntimeOptions,),
    "TensorRT, TensorRT-RTX": (TensorRtOptions, TensorRtRtxOptions),
}


@with_options(_PANELS)
def build_engine(
    source: Annotated[Path, argument("CKPT|BUNDLE", "A checkpoint, or an exported bundle.")],
    out: Annotated[Path, out_option("Bundle folder to write; must be new or empty.")],
    precision: Annotated[
        PrecisionAsked,
        flag(
            "--precision",
            "A property of the file, not a hint; auto: int8 where measured recall allows it; same: recompile a "
            "BUNDLE's own graphs.",
        ),
    ] = "fp32",
    backend: Annotated[
        BackendAsked,
        flag("--backend", "Backend of the engine; auto: build with all that run here and keep the fastest."),
    ] = "onnxruntime",
    *,
    given: Mapping[str, Any],
    picture: Annotated[
        Path | None, flag("--picture PNG", "auto: blocks and choices as a picture.", rich_help_panel=_SEARCH)
    ] = None,
) -> None:
    """Compile both branches into a bundle of engines.

    INT8 and FP8 quantise convolutions and large products. One that would turn a calibration image's descriptor too far
    stays as the rest is, and `inspect` names it. With `--precision auto`, blocks are chosen by the recall measured on
    --recall-on; a search that was stopped goes on from OUT.search.json. With `--backend auto`, the engines of every
    backend that passes its checks are timed side by side; `inspect` and `bench` show the table. With
    `--descriptor-size`, a projection fitted to pairs makes descriptors shorter; the bundle takes galleries of its own.
    """
    from geodtr.export.model import check_source
    from geodtr.export.plots.files import check_pictures

    if picture is not None and precision != "auto":
        raise ConfigError(f"--picture: not for --precision {precision}. Leave out what is not for it.")
    check_pictures(picture)
    request = request_of(source, out, backend, precision, given)
    check_source(source)
    from geodtr.export.build.engine import build_engine as build

    bundle = build(request, track=track, warn=warn)
    quantisation = bundle.manifest.quantisation
    if quantisation is not None and quantisation.search is not None and precision == "auto":
        show_search(quantisation.search, quantisation.rest)
        if picture is not None:
            draw_search(quantisation, picture)
    _report(bundle)
    if precision == "same":
        return
    if bundle.manifest.speed is not None:
        messages.print(against_fp32(bundle.manifest.speed))
    elif bundle.manifest.precision in ("fp16", "int8", "fp8"):
        messages.print("Not timed beside fp32: --require-faster does that, bench at any time.")


def _report(bundle: "Bundle") -> None:
    """What was written, with the backends that were tried."""
    manifest = bundle.manifest
    quantisation = manifest.quantisation
    if manifest.backend_choice is not None:
        show_choice(manifest.backend_choice, manifest.backend.runs_by, "Backends, timed side by side")
    messages.print(
        f"Wrote {bundle.path}: {manifest.backend.runs_by}, {manifest.precision}, {megabytes(bundle.bytes)} MB"
        f"{', ' + int8_share(quantisation) if quantisation else ''}",
    )
    if manifest.backend.targets is not None:
        messages.print(f"{manifest.backend.name}: {manifest.backend.targets}")
