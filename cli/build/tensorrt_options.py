"""The options of build-engine that are TensorRT's and TensorRT-RTX's alone."""

from pathlib import Path
from typing import Annotated, Any

import typer

from geodtr.runtime.names import Hardware

_PANEL = "TensorRT, TensorRT-RTX"
_BATCH = "The optimisation profile's"


def _option(name: str, help_: str, default: str | bool = False, **more: Any) -> typer.models.OptionInfo:
    info: typer.models.OptionInfo = typer.Option(
        name,
        help=help_,
        show_default=default,
        rich_help_panel=_PANEL,
        **more,
    )
    return info


MinBatch = Annotated[int | None, _option("--min-batch", f"{_BATCH} smallest batch.", "1", min=1)]
OptBatch = Annotated[int | None, _option("--opt-batch", f"{_BATCH} usual batch, which is fastest.", "8", min=1)]
MaxBatch = Annotated[int | None, _option("--max-batch", f"{_BATCH} largest batch; more images are cut.", "32", min=1)]
Workspace = Annotated[
    int | None, _option("--workspace", "Most GPU memory one layer may use.", "all", metavar="MIB", min=1)
]
OptimisationLevel = Annotated[
    int | None, _option("--optimisation-level", "0 builds fastest, 5 runs fastest.", "TensorRT's own", min=0, max=5)
]
VersionCompatible = Annotated[
    bool, _option("--version-compatible", "Later versions of TensorRT run the engine too; slower.")
]
OnHardware = Annotated[Hardware, _option("--hardware", "The GPUs that may run the engine; more are slower.", True)]
Dla = Annotated[
    int | None, _option("--dla", "Deep-learning accelerator that runs what it can.", "none", metavar="CORE", min=0)
]
Strip = Annotated[bool, _option("--strip", "Leave the weights out of the engine: they are in the graph beside it.")]
Refittable = Annotated[bool, _option("--refittable", "Another model's weights may be put into the engine later.")]
RefitFrom = Annotated[
    Path | None,
    _option("--refit-from", "Put the weights into this refittable bundle's engines; compile none.", metavar="BUNDLE"),
]
ExposeReductions = Annotated[
    bool,
    _option("--expose-reductions", "Fuse nothing across reductions, which 11.2 does wrongly; tried where checks fail."),
]
ComputeCapability = Annotated[
    list[str] | None,
    _option(
        "--compute-capability", "TensorRT-RTX: a GPU to build for, like 89; repeatable.", "since Ampere", metavar="CC"
    ),
]
