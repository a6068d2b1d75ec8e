"""What a user may ask of TensorRT's builder. Knows no TensorRT: the command line imports it."""

from dataclasses import dataclass, fields
from pathlib import Path

from geodtr.runtime.errors import ConfigError
from geodtr.runtime.manifest import TensorRtEntry
from geodtr.runtime.names import Hardware

MIN_BATCH, OPT_BATCH, MAX_BATCH = 1, 8, 32
_TYPED = {"dla_core": "dla", "compute_capabilities": "compute-capability"}


@dataclass(frozen=True, slots=True)
class TensorRtOptions:
    """How plans are built.

    `min_batch`, `opt_batch`, `max_batch`: of the optimisation profile; None is 1, 8 and 32, as far as the others allow,
    and with `dla_core` one batch size for all three.
    `workspace`: the most MiB of GPU memory that one layer may use, None for all there is.
    `optimisation_level`: 0 (fastest build) to 5 (fastest engine), None for TensorRT's own.
    `version_compatible`: later versions run the plan too. `hardware`: the GPUs that do.
    `dla_core`: the accelerator that runs what it can, the GPU the rest.
    `strip`: leave the weights out, they are in the graph beside the plan.
    `refittable`: another model's weights may be put into the plan. `refit_from`: a refittable bundle whose plans get
    this model's weights, instead of compiling.
    `expose_reductions`: make reductions outputs of the network, across which nothing is fused then.
    `compute_capabilities`: of the GPUs that TensorRT-RTX builds for, like "89" or "8.9"; empty for all since Ampere.
    Raises ConfigError when they exclude each other.
    """

    min_batch: int | None = None
    opt_batch: int | None = None
    max_batch: int | None = None
    workspace: int | None = None
    optimisation_level: int | None = None
    version_compatible: bool = False
    hardware: Hardware = "same-gpu"
    dla_core: int | None = None
    strip: bool = False
    refittable: bool = False
    refit_from: Path | None = None
    expose_reductions: bool = False
    compute_capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        least, usual, most = self.batches
        if not 1 <= least <= usual <= most:
            raise ConfigError(
                f"--min-batch {least}, --opt-batch {usual} and --max-batch {most} must rise from at least 1."
            )
        if self.dla_core is not None and least != most:
            raise ConfigError(
                f"A DLA runs one batch size: --min-batch {least}, --opt-batch {usual} and --max-batch {most} must be "
                "equal. Name only --opt-batch."
            )
        if self.version_compatible and (self.strip or self.refittable):
            raise ConfigError(
                "--version-compatible excludes --strip and --refittable: the lean runtime that such a plan carries "
                "cannot put weights into it. Leave one out."
            )
        if self.refit_from is not None and self.asked != ["--refit-from"]:
            raise ConfigError(
                f"--refit-from {self.refit_from} takes that bundle's plans as they were built: leave the other options "
                "of TensorRT out."
            )

    @property
    def asked(self) -> list[str]:
        """The options that differ from their defaults, as the user types them."""
        names = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        return [f"--{_TYPED.get(name, name.replace('_', '-'))}" for name in names]

    @property
    def batches(self) -> tuple[int, int, int]:
        """Smallest, usual and largest batch."""
        if self.dla_core is not None:
            usual = self.opt_batch or self.max_batch or self.min_batch or 1
            return self.min_batch or usual, usual, self.max_batch or usual
        usual = self.opt_batch or max(self.min_batch or 1, min(OPT_BATCH, self.max_batch or OPT_BATCH))
        return self.min_batch or MIN_BATCH, usual, self.max_batch or max(MAX_BATCH, usual)

    @property
    def entry(self) -> TensorRtEntry:
        """What a loader of the plans must know."""
        least, usual, most = self.batches
        return TensorRtEntry(
            min_batch=least,
            opt_batch=usual,
            max_batch=most,
            version_compatible=self.version_compatible,
            hardware=self.hardware,
            dla_core=self.dla_core,
            stripped=self.strip,
            refittable=self.refittable,
            workspace=self.workspace,
            optimisation_level=self.optimisation_level,
            expose_reductions=self.expose_reductions,
        )
