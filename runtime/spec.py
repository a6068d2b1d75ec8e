"""The specification of a branch: its preprocessing, its input and descriptor shapes.

These values travel with the weights, from the training configuration through the checkpoint into the bundle's
manifest, so that an engine cannot be fed differently from how it was trained.
"""

from dataclasses import dataclass
from math import inf, isfinite
from typing import Annotated, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from geodtr.runtime.arguments import check_argument
from geodtr.runtime.names import Branch

Images = NDArray[np.uint8]
"""uint8 RGB, [H, W, 3] or [B, H, W, 3]."""

Descriptors = NDArray[np.float32]
"""float32 [N, D], rows of unit length."""

EmbeddingId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16,64}$")]
"""The space that descriptors live in: the beginning of a digest of the weights, or all of it."""

INPUT, OUTPUT = "images", "descriptors"
"""The names of an engine's only input and output."""

Resize = Literal["pillow-bilinear-antialias", "area", "opencv-linear-exact", "opencv-cubic"]

PerChannel = float | tuple[float, float, float]
"""One value for all channels, or one each for red, green and blue."""

MAX_SIDE = 16_384
"""Pixels; a larger size is a mistake, and in a manifest it would exhaust the memory."""


class Geometry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The part of a Preprocessing that determines the pixels; a prepared image stores it in its file."""

    height: int
    width: int
    polar: bool
    rows: tuple[float, float]
    resize: Resize
    stretch: bool = False
    overview: int = 0
    polar_scale: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the pixels."""
        return self.height, self.width + self.overview, 3


Projection = Literal["any", "panorama", "perspective", "nadir"]


class Imagery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the images of a branch show, as they were taken. What is "any" or None is not known, and is not checked.

    `projection`: a "panorama" has a heading at each column, a "nadir" image looks straight down. `field_of_view`:
    horizontal, in degrees. `aspect`: width over height, before `rows` are cropped. `tile_metres`: side of an aerial
    tile on the ground.
    Raises ValueError naming a value out of range.
    """

    projection: Projection = "any"
    field_of_view: float | None = None
    aspect: float | None = None
    tile_metres: float | None = None

    @property
    def is_narrow(self) -> bool:
        """Whether images are known to look ahead, at less than a full turn: none of them can be rotated."""
        stated = self.projection == "perspective" or (self.field_of_view or 360.0) < 360.0
        return stated and self.projection != "nadir"

    def __post_init__(self) -> None:
        most = {"field_of_view": 360.0, "aspect": 100.0, "tile_metres": 1e6}
        for name, limit in most.items():
            value = getattr(self, name)
            if value is not None and not 0 < value <= limit:
                raise ValueError(f"{name} is {value:g}; it must be above 0, and at most {limit:g}")


ANY_IMAGES = Imagery()
PANORAMAS = Imagery(projection="panorama", field_of_view=360.0)
"""What is known of a model whose data set is not."""


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a decoded image becomes a network input of `height` x `width` pixels.

    With `polar`, a square aerial tile is polar-transformed, and with `stretch` its levels are then spread over 0 to
    255, as SciPy once wrote floating-point images. Otherwise the image is cropped to the part between two
    fractions of its height in `rows` (all of it by default; a quarter to three quarters for CVACT's panoramas) and
    resized: by Pillow's bilinear filter with antialiasing, by averaging the `area` that an output pixel covers, or by
    OpenCV's INTER_LINEAR_EXACT, which is bilinear without antialiasing, or its INTER_CUBIC. A `polar_scale` above 1
    makes the polar transform so many times larger, and then resizes it.
    With `overview`, the same image follows on the right once more, resized to a square of that side, with black below
    it: for a network that looks at a small image to choose what it sees of the large one.
    `colour`, `layout` and `dtype` have one legal value each: they are recorded so that a bundle with another value is
    refused instead of being misread. `mean` and `std` (of pixels scaled to 0..1) are applied inside the network's
    graph, never by the caller. `imagery` states which images the model was trained on.
    Raises ValueError naming a value out of range.
    """

    height: int
    width: int
    polar: bool = False
    stretch: bool = False
    rows: tuple[float, float] = (0.0, 1.0)
    mean: PerChannel = 0.5
    std: PerChannel = 0.5
    resize: Resize = "pillow-bilinear-antialias"
    colour: Literal["RGB"] = "RGB"
    layout: Literal["NHWC"] = "NHWC"
    dtype: Literal["uint8"] = "uint8"
    imagery: Imagery = ANY_IMAGES
    overview: int = 0
    polar_scale: int = 1

    def __post_init__(self) -> None:
        for name, size in (("height", self.height), ("width", self.width)):
            if not 1 <= size <= MAX_SIDE:
                raise ValueError(f"{name} is {size}; allowed are 1 to {MAX_SIDE} pixels")
        first, last = self.rows
        if not 0 <= first < last <= 1:
            raise ValueError(f"rows is {first} to {last}; allowed are two rising shares of the height from 0 to 1")
        if self.polar and (first, last) != (0, 1):
            raise ValueError("rows cannot be chosen with polar: the transform takes the whole square tile")
        if self.stretch and not self.polar:
            raise ValueError("stretch is for the polar transform's result: set polar as well")
        most = MAX_SIDE // max(self.height, self.width)
        if self.polar_scale != 1 and not (self.polar and 1 <= self.polar_scale <= most):
            raise ValueError(f"polar_scale is {self.polar_scale}; allowed are 1, and with polar 1 to {most}")
        if self.overview and (self.polar or not 1 <= self.overview <= self.height):
            raise ValueError(
                f"overview is {self.overview}; allowed are 0, and without polar 1 to the height of {self.height} pixels"
            )
        if not (all(map(isfinite, per_channel(self.mean))) and all(0 < std < inf for std in per_channel(self.std))):
            raise ValueError(f"mean is {self.mean} and std {self.std}; std must be above 0, and both be finite")

    @property
    def geometry(self) -> Geometry:
        """The values that determine the uint8 pixels; the network applies mean and std later."""
        return Geometry(
            height=self.height,
            width=self.width,
            polar=self.polar,
            rows=self.rows,
            resize=self.resize,
            stretch=self.stretch,
            overview=self.overview,
            polar_scale=self.polar_scale,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a network input, the overview included."""
        return self.geometry.shape


def per_channel(values: PerChannel) -> tuple[float, float, float]:
    """For red, green and blue."""
    return values if isinstance(values, tuple) else (values, values, values)


class Correlation(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="name", tag="correlation"
):
    """A scorer: descriptors are maps over the heading, and are compared at every orientation (DSM).

    A reference's map is a full turn of `columns`, column 0 looking south as in a polar-transformed tile; a query's has
    `seen` columns, over `field_of_view` degrees. Each column has `values`, and a descriptor has column after column.
    Raises ValueError when a query sees more than a full turn.
    """

    columns: Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)]
    seen: Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)]
    values: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
    field_of_view: Annotated[float, msgspec.Meta(gt=0, le=360)]

    @property
    def query_size(self) -> int:
        """Values of a query's descriptor."""
        return self.seen * self.values

    @property
    def reference_size(self) -> int:
        """Values of a reference's descriptor."""
        return self.columns * self.values

    def sees(self, field_of_view: float) -> bool:
        """Whether a query of so many degrees has `seen` columns: within a degree (DSM's 70 are 99 of 512 columns of
        pixels), or within a column of pixels, an eighth of a map's, where that is more.
        """
        return abs(field_of_view - self.field_of_view) <= max(1, 360 / self.columns / 8)

    def __post_init__(self) -> None:
        if self.seen > self.columns:
            raise ValueError(f"seen is {self.seen}, more than a full turn of {self.columns} columns")


class BranchSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One branch's input and output: images [B, *preprocessing.shape], descriptors [B, descriptor_size].

    `scorer`: what compares the descriptors of both branches, None for the cosine.
    Raises ValueError when the ground branch is polar, or the descriptor is none that the scorer takes.
    """

    branch: Branch
    preprocessing: Preprocessing
    descriptor_size: int
    scorer: Correlation | None = None

    @property
    def chooses(self) -> bool:
        """Whether the network chooses which patches it sees, so that a rounding may exchange two."""
        return self.preprocessing.overview > 0

    def __post_init__(self) -> None:
        if self.branch == "ground" and self.preprocessing.polar:
            raise ValueError("the ground branch cannot be polar: the transform takes square aerial tiles")
        if self.scorer is not None:
            taken = self.scorer.query_size if self.branch == "ground" else self.scorer.reference_size
            if self.descriptor_size != taken:
                raise ValueError(f"descriptor_size is {self.descriptor_size}; the scorer takes {taken} values")


def scorer_name(scorer: Correlation | None) -> str:
    """What errors and tables call it."""
    return "cosine" if scorer is None else "correlation over the heading"


def noise(spec: BranchSpec, batch: int) -> Images:
    """Seeded random pixels of the size that a branch takes, uint8 [batch, height, width, 3].

    The same numbers of images begin with the same images.
    """
    return np.random.default_rng(0).integers(0, 256, (batch, *spec.preprocessing.shape), np.uint8)


class Embedder(Protocol):
    """One branch, ready to run, implemented by PyTorch and by every backend's engine."""

    @property
    def spec(self) -> BranchSpec: ...

    def embed(self, images: Images) -> Descriptors:
        """[B, H, W, 3] -> [B, D], unit rows; any B."""
        ...


@dataclass(frozen=True, slots=True)
class EmbedderPair:
    """Both branches of one model."""

    ground: Embedder
    aerial: Embedder

    def __getitem__(self, branch: Branch) -> Embedder:
        check_argument("branch", branch, Branch)
        return self.ground if branch == "ground" else self.aerial
