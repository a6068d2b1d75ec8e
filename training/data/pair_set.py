"""A set of pairs: which ground image belongs to which aerial tile, and where on Earth if that is known.

Knows paths and coordinates; reads no pixels.
"""

from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.errors import DataError
from geodtr.runtime.names import Branch


@dataclass(frozen=True, slots=True)
class Pair:
    """One ground image and its aerial tile. `lat`, `lon` in degrees (WGS 84), `heading` clockwise from north."""

    ground: Path
    aerial: Path
    lat: float | None = None
    lon: float | None = None
    heading: float | None = None


@dataclass(frozen=True, slots=True)
class PairSet:
    """Pairs in a stable order; `name` is the SPEC they were read by. Never empty."""

    name: str
    pairs: tuple[Pair, ...]

    def __post_init__(self) -> None:
        if not self.pairs:
            raise DataError(f"{self.name} holds no pairs. Check the path and the split.")
        for pair in self.pairs:
            for path in (pair.ground, pair.aerial):
                if not path.is_file():
                    raise DataError(
                        f"{path} does not exist, though {self.name} lists it. Restore it, or remove its row."
                    )

    def __len__(self) -> int:
        return len(self.pairs)

    def paths(self, branch: Branch) -> list[Path]:
        """The images of one branch, in the set's order."""
        return [pair.ground if branch == "ground" else pair.aerial for pair in self.pairs]
