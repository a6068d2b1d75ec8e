"""What a camera of a limited field of view or of unknown heading sees of a data set's full panoramas.

A panorama is resized to the width at which the field of view is the model's input, rolled, and cut: nothing is resized
twice. The roll and the cut are `seen_columns`, in training too. Sources: the releases of DSM (Shi et al., CVPR 2020),
whose draws these are, and of TransGeo (Zhu et al., CVPR 2022), which cut in the same way.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.arguments import check_fields
from geodtr.runtime.errors import ArgumentError, ConfigError, ImageError
from geodtr.runtime.images.decode import Decoded, decode
from geodtr.runtime.images.intake import is_full_turn
from geodtr.runtime.images.preprocess import as_input, load_image
from geodtr.runtime.names import Heading
from geodtr.runtime.spec import MAX_SIDE, Correlation, Images, Preprocessing

FULL_TURN = 360.0
DSM_SEED = 2019
"""Of the release's test."""


@dataclass(frozen=True, slots=True)
class View:
    """What is seen of one panorama: `field_of_view` in degrees, after a roll to the right by `roll`, a share of a full
    turn below 1; None where the heading is known: then the middle of the view looks north. `rows` as in `Views`.
    """

    field_of_view: float
    roll: float | None = None
    rows: tuple[float, float] | None = None

    @property
    def turned(self) -> bool:
        """Whether the panorama is rolled or cut to fewer columns."""
        return self.roll is not None or self.field_of_view != FULL_TURN


@dataclass(frozen=True, slots=True)
class Views:
    """What is seen of each full panorama of a data set: by default all of it, as it is.

    Attributes
    ----------
    field_of_view
        Horizontal, in degrees.
    heading
        "unknown": each panorama is rolled by a random share of a full turn. "known": it stays as it is aligned.
    seed
        Of the rolls: each belongs to a pair by its place in the list; 2019 gives the rolls of DSM's release.
    rows
        The first and last row that are kept, as shares of the height, in place of the model's own.

    Raises ConfigError for a value that is not allowed.
    """

    field_of_view: float = FULL_TURN
    heading: Heading = "known"
    seed: int = DSM_SEED
    rows: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.field_of_view <= FULL_TURN:
            raise ArgumentError("field_of_view", f"is {self.field_of_view:g}; allowed are degrees above 0, up to 360.")
        if not 0 <= self.seed < 2**32:
            raise ArgumentError("seed", f"is {self.seed}; allowed are 0 to {2**32 - 1}.")
        if self.rows is not None and not 0 <= self.rows[0] < self.rows[1] <= 1:
            raise ArgumentError(
                "rows",
                f"is {self.rows[0]:g},{self.rows[1]:g}; allowed are two rising shares from 0 to 1, such as 0.25,0.75.",
            )

    @property
    def full(self) -> bool:
        """Whether panoramas show the full turn, as they are aligned."""
        return self.heading == "known" and self.field_of_view == FULL_TURN

    @property
    def as_they_are(self) -> bool:
        """Whether panoramas are neither rolled nor cut."""
        return self.full and self.rows is None

    def __str__(self) -> str:
        rows = "" if self.rows is None else f", rows {self.rows[0]:g} to {self.rows[1]:g}"
        return f"{self.field_of_view:g}° of view, {self.heading} heading{rows}"

    def of_pairs(self, count: int) -> list[View | None]:
        """The view of each of the first `count` pairs of a list; None for the panorama as it is."""
        if self.heading == "known":
            return [None if self.as_they_are else View(self.field_of_view, rows=self.rows)] * count
        rolls = np.random.RandomState(self.seed).random_sample(count)
        return [View(self.field_of_view, roll, self.rows) for roll in rolls.tolist()]


ALL = Views()
"""Panoramas as they are."""


def columns_of(field_of_view: float, width: int) -> int:
    """How many of the `width` columns of a full panorama `field_of_view` degrees are: rounded down, as the releases do;
    at least one.
    """
    # A field that was computed from whole columns keeps them.
    return max(1, int(width * field_of_view / FULL_TURN + 1e-6))


def seen_columns(shift: NDArray[np.int64], width: int, seen: int) -> NDArray[np.int64]:
    """The columns of panoramas of `width` that are seen once they are rolled by `shift` [B] to the right and cut to
    their first `seen`, int64 [B, seen].
    """
    return (np.arange(seen) - shift[:, None]) % width


def to_the_middle(width: int, seen: int) -> int:
    """The shift after which the first `seen` of `width` columns are those about the middle, which looks north."""
    return -((width - seen) // 2)


def full_panorama(ground: Preprocessing, field_of_view: float, scorer: Correlation | None = None) -> Preprocessing:
    """The preprocessing of full panoramas, of which `field_of_view` degrees are what `ground` describes.

    Raises ConfigError where the scorer takes another field of view, or the panorama would be too wide.
    """
    if scorer is not None:
        if not scorer.sees(field_of_view):
            raise ConfigError(
                f"The field of view is {field_of_view:g}°, and {ground.width} columns of this model are "
                f"{scorer.field_of_view:.0f}°. Give --fov {scorer.field_of_view:.0f}, or train a model for the other: "
                f"geodtr-export train ... --fov {field_of_view:g}"
            )
        field_of_view = scorer.field_of_view
    width = round(ground.width * FULL_TURN / field_of_view)
    if width > MAX_SIDE:
        raise ConfigError(
            f"At {field_of_view:g}° of view, panoramas would be {width} columns wide for an input of {ground.width}; "
            f"allowed are {MAX_SIDE}. Take a larger --fov, or a model with a smaller ground.width."
        )
    return msgspec.structs.replace(ground, width=width)


def load_query(path: Path, view: View | None, how: Preprocessing, scorer: Correlation | None = None) -> Images:
    """Decode and preprocess one ground image, and of a panorama take what is seen: uint8 RGB [height, width, 3].

    Raises ImageError, naming the file, also where a view is asked for of an image that is no full turn.
    """
    if view is not None and view.rows is not None:
        how = msgspec.structs.replace(how, rows=view.rows)
    if view is None or not view.turned:
        return load_image(path, how)
    full = full_panorama(how, view.field_of_view, scorer)
    image = decode(path)
    check_full_turn(path, image)
    try:
        panorama = as_input(image, full)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    return _cut(panorama, view, how.width)


def check_full_turn(path: Path, image: Decoded) -> None:
    """Raise ImageError naming the file `path` where its image cannot show all around: no view can be cut of it.

    A prepared image has a model's shape, which shows nothing of the panorama's.
    """
    width, height = image.image.size
    if image.prepared is None and not is_full_turn(width, height):
        raise ImageError(
            f"{path} has {width}x{height} pixels, which is no full turn: no view can be cut of it. Leave --fov and "
            "--heading out (in training, recipe.fields=[]): images of a camera are taken as they are."
        )


def seen_of(panorama: Images, view: View) -> Images:
    """What is seen of a panorama as it was taken, uint8 [H, W, 3]."""
    height, width, _ = panorama.shape
    first, last = (round(share * height) for share in view.rows or (0, 1))
    return _cut(panorama[first:last], view, columns_of(view.field_of_view, width))


def _cut(panorama: Images, view: View, seen: int) -> Images:
    """The `seen` columns of a panorama, uint8 [H, W, 3], that its view is."""
    width = panorama.shape[1]
    shift = to_the_middle(width, seen) if view.roll is None else int(view.roll * width)
    return np.ascontiguousarray(panorama[:, seen_columns(np.array([shift]), width, seen)[0]])
