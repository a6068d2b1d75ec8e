"""From a map's bands to uint8 RGB: which bands, and how their values become 8 bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.spec import Images

_COLOURS = ("red", "green", "blue")


@dataclass(frozen=True, slots=True)
class Bands:
    """`indexes` (counted from 1) are read: three, or one that is grey, or an index into `palette`, uint8 [N, 3].

    `stretch` is what becomes 0 and 255.
    """

    indexes: tuple[int, ...]
    palette: Images | None = None
    stretch: tuple[float, float] | None = None

    def to_rgb(self, values: NDArray[Any]) -> Images:
        """[bands, H, W] of the map's own type -> uint8 [H, W, 3]; what is beyond `stretch` is cut, NaN is black."""
        if self.palette is not None:
            return np.asarray(self.palette[values[0]], np.uint8)
        if self.stretch is not None:
            low, high = self.stretch
            scaled = (values.astype(np.float32) - low) * (255 / (high - low))
            values = np.rint(np.clip(np.nan_to_num(scaled, nan=0), 0, 255)).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(values.transpose(1, 2, 0), (*values.shape[1:], 3)))


def choose_bands(dataset: Any, asked: tuple[int, ...] | None, stretch: tuple[float, float] | None, where: str) -> Bands:
    """Choose the bands of an opened rasterio dataset: those `asked` for (one or three), or red, green and blue by their
    labels, or the first three, or the only one.

    Raises ConfigError for bands that do not exist, DataError, naming the map as `where`, when the bands have no
    labels, or their values are not 8-bit and no `stretch` converts them.
    """
    labels = [label.name for label in dataset.colorinterp]
    indexes = _find(labels, where) if asked is None else _check(asked, labels, where)
    types = {dataset.dtypes[index - 1] for index in indexes}
    if len(indexes) == 1 and labels[indexes[0] - 1] == "palette" and types <= {"uint8", "uint16"}:
        if stretch is not None:
            raise ConfigError(f"{where} has a colour table, which gives its colours: leave --stretch out.")
        return Bands(indexes, _palette(dataset.colormap(indexes[0]), types == {"uint16"}))
    held = f"{where} holds {', '.join(sorted(types))} values"
    if any(name.startswith("complex") for name in types):
        raise DataError(f"{held}; allowed are whole and floating-point numbers. Choose other bands: --bands N")
    if types != {"uint8"} and stretch is None:
        raise DataError(
            f"{held}; 8-bit ones are needed. Say which values become black and white: --stretch LOW,HIGH, the same for "
            "every map of a gallery."
        )
    return Bands(indexes, stretch=stretch)


def alpha_band(dataset: Any) -> int | None:
    """The number of the band that is labelled alpha, wherever it stands; None without one."""
    labels = [label.name for label in dataset.colorinterp]
    return labels.index("alpha") + 1 if "alpha" in labels else None


def _find(labels: Sequence[str], where: str) -> tuple[int, ...]:
    if all(labels.count(colour) == 1 for colour in _COLOURS):
        return tuple(labels.index(colour) + 1 for colour in _COLOURS)
    visible = [number for number, label in enumerate(labels, start=1) if label != "alpha"]
    if len(visible) == 1:
        return (visible[0],)
    if len(visible) >= 3:
        return tuple(visible[:3])
    raise DataError(
        f"{where} has {len(labels)} bands ({', '.join(labels)}), not labelled as red, green and blue. Choose "
        "three, or a grey one: --bands 1"
    )


def _check(asked: tuple[int, ...], labels: Sequence[str], where: str) -> tuple[int, ...]:
    if not all(1 <= number <= len(labels) for number in asked):
        raise ConfigError(
            f"Bands {', '.join(map(str, asked))} are asked for; {where} has 1 to {len(labels)} ({', '.join(labels)})."
        )
    return asked


def _palette(colours: dict[int, tuple[int, int, int, int]], deep: bool) -> Images:
    """A row for each value that the band may hold; those without a colour are black."""
    palette = np.zeros((65_536 if deep else 256, 3), np.uint8)
    for index, colour in colours.items():
        palette[index] = colour[:3]
    return palette
