"""From an image as it was taken to one that a model was trained on, and whether it is one.

An image states what it shows by its XMP (GPano, DJI's gimbal), its user by `field_of_view`, `camera` or
`equirectangular`; where nobody does, its shape decides. Knows images and `Imagery`; knows nothing of engines.
"""

from dataclasses import dataclass
from pathlib import Path

from geodtr.runtime.arguments import check_fields
from geodtr.runtime.errors import ArgumentError, ImageError
from geodtr.runtime.images.camera_model import CameraModel, describe_camera, undistort
from geodtr.runtime.images.decode import Decoded, decode
from geodtr.runtime.images.recorded import Recorded
from geodtr.runtime.images.xmp import gimbal_pitch_of, panorama_of, read_properties
from geodtr.runtime.names import Mismatch, Shape
from geodtr.runtime.spec import Imagery, Projection

_SAME = 0.1
"""Aspects and fields of view may differ by this share: phones and converters round, and cut a few rows."""
_ALL_AROUND = 359.5
_DOWNWARDS = -60.0
"""Gimbal pitch in degrees from which an image shows the ground from above."""


@dataclass(frozen=True, slots=True)
class Taken:
    """`image` is what the model takes. `full_turn`: its ends meet. `heading`: of its middle column in degrees, where
    the file states it. `doubt`: why it is not an image that the model was trained on, None where nothing speaks
    against it.
    """

    image: Decoded
    full_turn: bool
    heading: float | None = None
    doubt: str | None = None


@dataclass(frozen=True, slots=True)
class Intake:
    """What the user states of all images.

    Attributes
    ----------
    field_of_view
        Horizontal, in degrees; None where the images or their shape tell.
    shape
        "equirectangular" images cover the whole sphere, and are cropped to the rows that the model was trained on.
    camera
        Calibration that images are undistorted by.
    mismatch
        Whether an image that the model was not trained on is an ImageError, or a doubt.

    Raises ConfigError where two of them contradict each other.
    """

    field_of_view: float | None = None
    shape: Shape = "as-taken"
    camera: CameraModel | None = None
    mismatch: Mismatch = "refuse"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.field_of_view is not None and not 0 < self.field_of_view <= 360:
            raise ArgumentError("field_of_view", f"is {self.field_of_view:g}; allowed are degrees above 0, up to 360.")
        if self.shape == "equirectangular" and (self.camera is not None or self.field_of_view not in (None, 360)):
            raise ArgumentError(
                "shape",
                "is equirectangular, of images that show all around: leave {} and {} out.",
                "field_of_view",
                "camera",
            )
        if self.camera is not None and self.field_of_view is not None:
            raise ArgumentError("field_of_view", "is stated by {} too: leave it out.", "camera")

    @property
    def conversion(self) -> str:
        """What is done to the images, in words: the same for the same."""
        if self.camera is not None:
            return f"undistorted ({describe_camera(self.camera)})"
        if self.shape == "equirectangular":
            return "cropped from the whole sphere"
        return "as taken" if self.field_of_view is None else f"{self.field_of_view:g}° of view"

    def check(self, imagery: Imagery) -> None:
        """Raise ConfigError where a model of this imagery cannot take what the user states."""
        if self.shape == "equirectangular" and (imagery.projection != "panorama" or imagery.aspect is None):
            raise ArgumentError(
                "shape",
                "is equirectangular, which crops to the rows of a panorama, and the bundle does not state the aspect "
                f"of its model's panoramas ({describe(imagery)}). Train or import it with its preset, or crop the "
                "images before.",
            )

    def take(self, decoded: Decoded, imagery: Imagery, name: str, recorded: Recorded | None = None) -> Taken:
        """Convert and check one image, which messages call `name`. An image that was prepared is taken as it is. What
        its own file does not state, `recorded` may.

        Raises ImageError where the image is not one for the model, the camera or the conversion.
        """
        if decoded.prepared is not None:
            return Taken(decoded, imagery.projection in ("any", "panorama") and is_full_turn(*decoded.image.size))
        properties = read_properties(decoded.xmp)
        panorama, pitch = panorama_of(properties, name), gimbal_pitch_of(properties, name)
        if pitch is None and recorded is not None and recorded.tilt is not None:
            pitch = recorded.tilt.value - 90
        projection, view = self._stated(None if panorama is None else panorama.field_of_view, pitch)
        if self.camera is not None:
            decoded = undistort(decoded, self.camera, name)
        elif self.shape == "equirectangular":
            decoded = _cropped(decoded, view, imagery, name)
        doubt = _doubt(decoded, projection, view, imagery)
        if doubt is not None and self.mismatch == "refuse":
            raise ImageError(
                f"{name}: {doubt}; the model was trained on {describe(imagery)}. {_remedy(decoded, imagery)}To take "
                "it nevertheless: --mismatch warn"
            )
        full_turn = _is_full_turn(decoded, projection, view, imagery)
        heading = None if panorama is None else panorama.heading
        if heading is None and recorded is not None and recorded.heading is not None:
            heading = recorded.heading.value
        heading = heading if full_turn else None
        return Taken(decoded, full_turn, heading, doubt)

    def _stated(self, from_file: float | None, pitch: float | None) -> tuple[Projection, float | None]:
        """Projection and field of view; "any" and None where nothing states them."""
        if self.camera is not None:
            return "perspective", self.camera.field_of_view
        if self.shape == "equirectangular":
            return "panorama", 360.0 if from_file is None else from_file
        view = self.field_of_view if self.field_of_view is not None else from_file
        if pitch is not None and pitch <= _DOWNWARDS and from_file is None:
            return "nadir", view
        return "panorama" if from_file is not None else "any", view


AS_TAKEN = Intake()


def doubt_of(file: Path, imagery: Imagery) -> str | None:
    """Why the image in `file`, as it is, is none that a model of this imagery was trained on; None where nothing speaks
    against it. Raises ImageError naming the file.
    """
    doubt = Intake(mismatch="warn").take(decode(file), imagery, str(file)).doubt
    return None if doubt is None else f"{file}: {doubt}; the model was trained on {describe(imagery)}"


def is_full_turn(width: int, height: int) -> bool:
    """Whether an image as it was taken, of so many pixels, can show all around: it is at least twice as wide as high.

    A narrower one whose rows and columns have one pitch sees less than 360 degrees: its ends do not meet, and rolling
    it would make a picture of nowhere.
    """
    return width >= 2 * height


def describe(imagery: Imagery) -> str:
    """In words; "any images" where nothing is known."""
    what = {"any": "images", "panorama": "panoramas", "perspective": "perspective images", "nadir": "nadir images"}
    view = None if imagery.field_of_view is None else f"{imagery.field_of_view:g}° of view"
    aspect = None if imagery.aspect is None else f"aspect {imagery.aspect:g}:1"
    stated = [each for each in (view, aspect) if each is not None]
    if imagery.projection == "any" and not stated:
        return "any images"
    return what[imagery.projection] + (f" of {', '.join(stated)}" if stated else "")


def _doubt(decoded: Decoded, projection: Projection, view: float | None, imagery: Imagery) -> str | None:
    """Why the image is none that the model was trained on."""
    if projection == "nadir" and imagery.projection in ("panorama", "perspective"):
        return "the camera looked down (its gimbal's pitch)"
    if projection not in ("any", imagery.projection) and imagery.projection == "nadir":
        return f"it is a {projection} image"
    wanted = imagery.field_of_view
    if view is not None and wanted is not None and abs(view / wanted - 1) > _SAME:
        return f"it covers {view:.0f}°"
    width, height = decoded.image.size
    aspect = imagery.aspect
    if aspect is not None and abs(width / height / aspect - 1) > _SAME:
        return f"it has {width}x{height} pixels, an aspect of {width / height:.3g}:1"
    if aspect is None and view is None and wanted == 360 and not is_full_turn(*decoded.image.size):
        return f"it has {width}x{height} pixels, too narrow for a full turn"
    return None


def _remedy(decoded: Decoded, imagery: Imagery) -> str:
    width, height = decoded.image.size
    aspect = imagery.aspect
    if imagery.projection == "panorama" and aspect is not None and aspect > 2 and _is_sphere(width, height):
        return "If it shows the whole sphere: --from equirectangular. "
    return ""


def _cropped(decoded: Decoded, view: float | None, imagery: Imagery, name: str) -> Decoded:
    """The rows about the horizon that give the model's aspect."""
    width, height = decoded.image.size
    assert imagery.aspect is not None  # `check`
    if not _is_sphere(width, height) or (view is not None and view < 360):
        stated = "" if view is None else f", and covers {view:.0f}° by its XMP"
        raise ImageError(
            f"{name} has {width}x{height} pixels{stated}; an equirectangular image of the whole sphere is twice as "
            "wide as high. Leave --from out, or crop it before."
        )
    rows = min(height, max(1, round(width / imagery.aspect)))
    top = (height - rows) // 2
    return Decoded(decoded.image.crop((0, top, width, top + rows)), None, decoded.xmp)


def _is_full_turn(decoded: Decoded, projection: Projection, view: float | None, imagery: Imagery) -> bool:
    """Whether the image shows all around: its ends do not meet otherwise, and rolling it would show no place."""
    if imagery.projection in ("perspective", "nadir") or projection in ("perspective", "nadir"):
        return False
    if view is None and imagery.field_of_view is not None:
        view = imagery.field_of_view if imagery.field_of_view < _ALL_AROUND else None
    return is_full_turn(*decoded.image.size) if view is None else view >= _ALL_AROUND


def _is_sphere(width: int, height: int) -> bool:
    return abs(width / height / 2 - 1) < 0.02
