"""What is asked of shorter descriptors: their size, and the pairs that decide the rest. Imports nothing heavy."""

from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING

from geodtr.export.options import check_options, option

if TYPE_CHECKING:
    from geodtr.training.data.pair_set import PairSet


@dataclass(frozen=True, slots=True)
class Compact:
    """Shorter descriptors, by a projection that is fitted to pairs and becomes part of the graphs.

    It is a principal component analysis, whitened as far as that finds more of the pairs held out, or a linear layer
    that is trained from there on, where that finds more still. Every bundle that is built from this one keeps it.
    Galleries of the model without it, or with another, are refused.

    Parameters
    ----------
    descriptor_size
        Numbers of a descriptor, fewer than the model's.
    compact_on
        The pairs that it is fitted to, at least `descriptor_size` + 2: a data set as SPEC, or a set of pairs. Best are
        those that the model was not trained on.

    Raises
    ------
    ConfigError
        A value is not allowed.

    Examples
    --------
    >>> Compact(512, "pairs:world").descriptor_size
    512
    """

    descriptor_size: int = option(
        MISSING,
        "Numbers of a descriptor, fewer than the model's: project it.",
        type=int,
        shown="the model's",
        minimum=1,
    )
    compact_on: "str | PairSet" = option(
        MISSING, "Pairs that the projection is fitted to, best those not trained on.", "SPEC", type=str
    )

    def __post_init__(self) -> None:
        check_options(self)
