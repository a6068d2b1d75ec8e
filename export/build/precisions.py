"""What a build's precision is and how it is found: as it is, quantised, searched for, or a bundle's own.

Reads no file and imports nothing heavy, because the command line derives its options from these fields.
"""

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from geodtr.export.options import check_options, option
from geodtr.runtime.errors import ArgumentError, ConfigError
from geodtr.runtime.names import Choice, Dialect, Method, Precision, PrecisionAsked

if TYPE_CHECKING:
    from geodtr.calibration.ranges import RangeOptions
    from geodtr.calibration.select import Pool
    from geodtr.training.data.pair_set import PairSet

_DIALECT = "How the target wants quantised graphs."
_OWN = "this machine's own"


@dataclass(frozen=True, slots=True)
class Calibration:
    """The images that activation ranges are measured on, and how.

    Parameters
    ----------
    data
        A data set as SPEC (`cvusa:PATH#train`), a folder that holds `ground/` and `aerial/`, or a pool of images.
    ranges
        File that keeps the ranges: reused when model, images and settings match, else measured again.
    images
        Number of images per branch.
    select
        Which of them: the first, at random, spread over regions or folders, or over descriptors.
    seed
        Of the draw, where `select` draws.
    method
        How a tensor's values make its range.
    percentile
        Share of the values that the method `percentile` keeps, in percent.

    Raises
    ------
    ConfigError
        A value is not allowed; the message names those that are.

    Examples
    --------
    >>> Calibration("pairs:world#train", images=400).select
    'random'
    """

    data: "str | Pool" = option(
        MISSING,
        "Images that ranges are measured on: a data set, or a folder with ground/ and aerial/.",
        "SPEC|FOLDER",
        flag="--calibration",
        type=str,
    )
    ranges: Path | None = option(None, "File that keeps the ranges: reused when all matches, else measured again.")
    images: int = option(200, "How many of the images are used.", minimum=1)
    select: Choice = option("random", "Which: spread over regions or folders, or over descriptors.")
    seed: int = option(0, "Of the draw, where --select draws.", minimum=0)
    method: Method = option("minmax", "How a tensor's values make its range.")
    percentile: float = option(99.99, "Share of the values that its method keeps.", minimum=50, maximum=100)

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def range_options(self) -> "RangeOptions":
        """How images are chosen and how their values make ranges."""
        from geodtr.calibration.ranges import RangeOptions

        return RangeOptions(
            images=self.images,
            choice=self.select,
            seed=self.seed,
            method=self.method,
            percentile=self.percentile,
        )


@dataclass(frozen=True, slots=True)
class Float:
    """Graphs in floating point, nothing quantised.

    Parameters
    ----------
    precision
        `fp32` or `fp16`.

    Raises
    ------
    ConfigError
        Another precision; `Quantized` is for those in 8 bits.
    """

    precision: Literal["fp32", "fp16"] = "fp32"

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def argument(self) -> PrecisionAsked:
        """The value of `--precision`."""
        return self.precision


@dataclass(frozen=True, slots=True)
class Quantized:
    """Convolutions and large products in 8 bits, as many as keep the descriptors close to the float32 ones.

    Parameters
    ----------
    calibration
        What activation ranges are measured on.
    precision
        `int8` or `fp8`.
    keep_cosine
        Smallest cosine between a quantised descriptor and its float32 one, on the first 16 images; by default 0.993
        for int8 and 0.98 for fp8. An operator that would lower it further stays in floating point.
    dialect
        How the target wants INT8 graphs; by default as this machine does.

    Raises
    ------
    ConfigError
        A value is not allowed (`keep_cosine`: 0 to 1), or a dialect is given for fp8, which has only one.

    Examples
    --------
    >>> Quantized(Calibration("cvusa:CVUSA#train"), keep_cosine=0.995).precision
    'int8'
    """

    calibration: Calibration
    precision: Literal["int8", "fp8"] = "int8"
    keep_cosine: float | None = option(
        None,
        "Quantised: smallest cosine with float32, on 16 of them.",
        shown="int8 0.993, fp8 0.98",
        minimum=0,
        maximum=1,
    )
    dialect: Dialect | None = option(None, _DIALECT, shown=_OWN)

    def __post_init__(self) -> None:
        check_options(self)
        if self.precision == "fp8" and self.dialect is not None:
            raise ArgumentError("dialect", "is not for fp8, which has one. Leave it out.")

    @property
    def argument(self) -> PrecisionAsked:
        """The value of `--precision`."""
        return self.precision


@dataclass(frozen=True, slots=True)
class Auto:
    """Blocks in int8 chosen by the recall they keep and the time they save; a search of minutes.

    A search that was stopped continues from `OUT.search.json`.

    Parameters
    ----------
    calibration
        What activation ranges are measured on.
    recall_on
        The pairs that recall is measured on: a data set as SPEC, or a set of pairs.
    tolerance
        Points by which R@1 may fall.
    accept_undecided
        Choose by the measured drop where the pairs are too few to decide.
    dialect
        How the target wants INT8 graphs; by default as this machine does.

    Raises
    ------
    ConfigError
        A value is not allowed (`tolerance`: 0 to 100).
    """

    calibration: Calibration
    recall_on: "str | PairSet" = option(MISSING, "auto: pairs that recall is measured on.", "SPEC", type=str)
    tolerance: float = option(0.5, "auto: points by which R@1 may fall.", minimum=0, maximum=100)
    accept_undecided: bool = option(
        False, "auto: choose by the measured drop where the pairs of --recall-on are too few to decide."
    )
    dialect: Dialect | None = option(None, _DIALECT, shown=_OWN)

    argument: ClassVar[PrecisionAsked] = "auto"

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True)
class Recompile:
    """A bundle's own graphs as they are, compiled again for this machine and these versions.

    Parameters
    ----------
    dialect
        The INT8 dialect that the backend is to take; by default this machine's own. Other graphs are refused.
    """

    dialect: Dialect | None = option(None, _DIALECT, shown=_OWN)

    argument: ClassVar[PrecisionAsked] = "same"

    def __post_init__(self) -> None:
        check_options(self)


Plan = Float | Quantized | Auto | Recompile


def plan_of(
    precision: Precision,
    calibration: Calibration | None = None,
    *,
    keep_cosine: float | None = None,
    dialect: Dialect | None = None,
) -> Float | Quantized:
    """The plan of a precision that is not searched for. Raises ConfigError where there is nothing to calibrate on."""
    if precision == "fp32" or precision == "fp16":  # noqa: PLR1714 (mypy does not narrow what is left)
        return Float(precision)
    assert precision != "mixed"
    return Quantized(needed(calibration, precision), precision, keep_cosine, dialect)


def needed(calibration: Calibration | None, precision: PrecisionAsked) -> Calibration:
    """Raises ConfigError naming the option that is missing."""
    if calibration is None:
        raise ConfigError(
            f"{precision} needs images to measure activation ranges on: add --calibration SPEC, for example "
            "--calibration cvusa:PATH#train (200 images are drawn from it)."
        )
    return calibration
