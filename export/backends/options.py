"""What a caller may ask of each backend that builds engines. Knows no backend: the command line imports it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from geodtr.export.options import check_options, given, option, words
from geodtr.runtime.errors import ArgumentError
from geodtr.runtime.names import Backend, Hardware, Provider

if TYPE_CHECKING:
    from geodtr.runtime.manifest import TensorRtEntry

_MIN_BATCH, _OPT_BATCH, _MAX_BATCH = 1, 8, 32
_PROFILE = "The optimization profile's"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRuntimeOptions:
    """Engines for ONNX Runtime.

    Parameters
    ----------
    provider
        What ONNX Runtime computes with: the CPU, or a GPU by its CUDA or TensorRT provider.
    """

    backend: ClassVar[Backend] = "onnxruntime"
    provider: Provider = option("cpu", "What ONNX Runtime computes with.")

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoOptions:
    """Engines for OpenVINO on the CPU."""

    backend: ClassVar[Backend] = "openvino"


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What TensorRT and TensorRT-RTX have in common."""

    min_batch: int | None = option(None, f"{_PROFILE} smallest batch.", shown="1", minimum=1)
    opt_batch: int | None = option(None, f"{_PROFILE} usual batch, which is fastest.", shown="8", minimum=1)
    max_batch: int | None = option(None, f"{_PROFILE} largest batch; more images are cut.", shown="32", minimum=1)
    workspace: int | None = option(None, "Most GPU memory one layer may use.", "MIB", shown="all", minimum=1)
    optimisation_level: int | None = option(
        None, "0 builds fastest, 5 runs fastest.", shown="TensorRT's own", minimum=0, maximum=5
    )
    strip: bool = option(False, "Leave the weights out of the engine: they are in the graph beside it.")
    refittable: bool = option(False, "Another model's weights may be put into the engine later.")
    refit_from: Path | None = option(
        None, "Put the weights into this refittable bundle's engines; compile none.", "BUNDLE"
    )
    expose_reductions: bool = option(
        False, "Fuse nothing across reductions, which 11.2 does wrongly; tried where checks fail."
    )

    def __post_init__(self) -> None:
        check_options(self)
        least, usual, most = self.batches
        if not least <= usual <= most:
            fault = f"{least}, {{}} {usual} and {{}} {most} must rise from at least 1."
            raise ArgumentError("min_batch", fault, "opt_batch", "max_batch")
        if self.refit_from is not None and self.asked != ["--refit-from"]:
            raise ArgumentError(
                "refit_from", "takes a bundle's plans as they were built: leave the other options of TensorRT out."
            )

    @property
    def asked(self) -> list[str]:
        """The options that differ from their defaults, as the user types them."""
        return [flag for flag, _ in given(self)]

    @property
    def batches(self) -> tuple[int, int, int]:
        """Smallest, usual and largest batch."""
        usual = self.opt_batch or max(self.min_batch or 1, min(_OPT_BATCH, self.max_batch or _OPT_BATCH))
        return self.min_batch or _MIN_BATCH, usual, self.max_batch or max(_MAX_BATCH, usual)

    @property
    def entry(self) -> "TensorRtEntry":
        """What a loader of the plans must know."""
        from geodtr.runtime.manifest import TensorRtEntry

        least, usual, most = self.batches
        return TensorRtEntry(
            min_batch=least,
            opt_batch=usual,
            max_batch=most,
            stripped=self.strip,
            refittable=self.refittable,
            workspace=self.workspace,
            optimisation_level=self.optimisation_level,
            expose_reductions=self.expose_reductions,
        )


@dataclass(frozen=True, kw_only=True)
class TensorRtOptions(PlanOptions):
    """Plans of TensorRT, built on the GPU at hand.

    Parameters
    ----------
    min_batch, opt_batch, max_batch
        Batch sizes of the optimization profile; by default 1, 8 and 32, as far as the others allow, and with
        `dla_core` one batch size for all three.
    workspace
        Most GPU memory that one layer may use, in MiB; by default all there is.
    optimisation_level
        0 (fastest build) to 5 (fastest engine); by default TensorRT's own.
    strip
        Leave the weights out of the plan: they are in the graph beside it.
    refittable
        Another model's weights may be put into the plan later.
    refit_from
        A refittable bundle whose plans get this model's weights, instead of compiling.
    expose_reductions
        Make reductions outputs of the network, across which nothing is fused.
    version_compatible
        Later versions of TensorRT run the plan too; slower.
    hardware
        The GPUs that may run the plan; more are slower.
    dla_core
        The deep-learning accelerator that runs what it can; the GPU runs the rest.

    Raises
    ------
    ConfigError
        A value is out of bounds, or two options exclude each other.
    """

    backend: ClassVar[Backend] = "tensorrt"
    version_compatible: bool = option(False, "Later versions of TensorRT run the engine too; slower.")
    hardware: Hardware = option(
        "same-gpu",
        "The GPUs that may run the engine; more are slower.",
        instead="With tensorrt-rtx, --compute-capability names the GPUs that may run the engine.",
    )
    dla_core: int | None = option(
        None, "Deep-learning accelerator that runs what it can.", "CORE", flag="--dla", shown="none", minimum=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        least, usual, most = self.batches
        if self.dla_core is not None and least != most:
            fault = f"{least}, {{}} {usual} and {{}} {most} must be equal: a DLA runs one batch size. Name only {{}}."
            raise ArgumentError("min_batch", fault, "opt_batch", "max_batch", "opt_batch")
        if self.version_compatible and (self.strip or self.refittable):
            raise ArgumentError(
                "version_compatible",
                "excludes {} and {}: the lean runtime in such a plan cannot put weights into it. Leave one out.",
                "strip",
                "refittable",
            )

    @property
    def batches(self) -> tuple[int, int, int]:
        """Smallest, usual and largest batch: one size for a DLA."""
        if self.dla_core is None:
            return super().batches
        usual = self.opt_batch or self.max_batch or self.min_batch or 1
        return self.min_batch or usual, usual, self.max_batch or usual

    @property
    def entry(self) -> "TensorRtEntry":
        """What a loader of the plans must know."""
        import msgspec

        return msgspec.structs.replace(
            super().entry,
            version_compatible=self.version_compatible,
            hardware=self.hardware,
            dla_core=self.dla_core,
        )


@dataclass(frozen=True, kw_only=True)
class TensorRtRtxOptions(PlanOptions):
    """Plans of TensorRT-RTX, built on any machine for RTX GPUs.

    Parameters
    ----------
    compute_capabilities
        Of the GPUs to build for, like "89" or "8.9"; by default all since Ampere.
    **options
        Those that `TensorRtOptions` has too, up to `expose_reductions`.

    Raises
    ------
    ConfigError
        A value is out of bounds, or two options exclude each other.
    """

    backend: ClassVar[Backend] = "tensorrt-rtx"
    compute_capabilities: tuple[str, ...] = option(
        (),
        "TensorRT-RTX: a GPU to build for, like 89; repeatable.",
        "CC",
        flag="--compute-capability",
        type=list[str],
        shown="since Ampere",
        instead="TensorRT builds for the GPU at hand; --hardware names the others that may run the engine.",
    )


BackendOptions = OnnxRuntimeOptions | OpenVinoOptions | TensorRtOptions | TensorRtRtxOptions

BACKEND_OPTIONS: dict[Backend, type[BackendOptions]] = {
    each.backend: each for each in (OnnxRuntimeOptions, OpenVinoOptions, TensorRtOptions, TensorRtRtxOptions)
}
"""The options of each backend by its name."""


def backend_words(options: Any) -> list[str]:
    """The options of the command line that ask for a backend with its options."""
    return ["--backend", options.backend, *words(options)]
