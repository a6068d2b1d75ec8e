"""The node's parameters, with ROS's types: 0, NaN or an empty text stand for a value that is not set."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from math import inf, isnan, nan
from typing import Any, get_args

from geodtr.runtime.autopilot.options import Gates
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.images.intake import Intake
from geodtr.runtime.localization.nadir.hypotheses import NadirOptions
from geodtr.runtime.names import Mismatch


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a node is set to. Raises ConfigError naming a value out of range.

    Attributes
    ----------
    bundle, gallery
        Paths; the gallery may be a Milvus address.
    compressed
        The topic `image` carries CompressedImage.
    view
        "ground", or "nadir" for frames that look straight down, which need `fov` and `altitude`.
    headings
        Turns of a panorama to search.
    fov
        Horizontal field of view in degrees; 0 where images or their shape tell.
    altitude
        Metres above the ground.
    mismatch
        "refuse" or "warn", at an image that the model was not trained on.
    prior_radius
        Metres around the last position on the topic `prior` that are searched; 0 searches everything.
    prior_age
        Seconds that this position may be old; an image without such a prior is not localised.
    uncalibrated_sigma
        Publish positions without a calibrated radius too, with this standard deviation in metres; 0 publishes none.
    max_sigma
        Hold back positions of a larger standard deviation.
    origin
        Latitude and longitude of the poses' origin; the first position where they are NaN.
    frame_id, pose_frame
        Frames of the position and of the pose.
    threads
        CPU threads of the engine; 0 leaves the number to the backend.
    """

    bundle: str = ""
    gallery: str = ""
    compressed: bool = False
    view: str = "ground"
    headings: int = 1
    fov: float = 0.0
    altitude: float = 0.0
    mismatch: str = "refuse"
    prior_radius: float = 0.0
    prior_age: float = 2.0
    uncalibrated_sigma: float = 0.0
    max_sigma: float = 50.0
    origin: tuple[float, ...] = (nan, nan)
    frame_id: str = "base_link"
    pose_frame: str = "map"
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("bundle", "gallery"):
            if not getattr(self, name):
                raise ConfigError(f"Parameter {name} is not set: give its path.")
        for name, allowed in (("view", ("ground", "nadir")), ("mismatch", get_args(Mismatch))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"Parameter {name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}.")
        if self.view == "nadir" and not (self.fov > 0 and self.altitude > 0):
            raise ConfigError(f"Parameters fov and altitude are {self.fov} and {self.altitude}; view nadir needs both.")
        if self.headings < 1 or self.threads < 0 or self.prior_radius < 0:
            raise ConfigError("Parameter headings must be at least 1, threads and prior_radius at least 0.")
        if not 0 < self.prior_age < inf:
            raise ConfigError(f"Parameter prior_age is {self.prior_age:g}; allowed: seconds above 0, and finite.")
        lat, lon = self.origin if len(self.origin) == 2 else (91.0, 0.0)
        if not (isnan(lat) or (abs(lat) <= 90 and abs(lon) <= 180)):
            raise ConfigError(f"Parameter origin is {list(self.origin)}; allowed: [LAT, LON] in degrees.")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Parameters":
        """The values of all parameters, as ROS gives them."""
        plain: dict[str, Any] = {name: tuple(value) if name == "origin" else value for name, value in values.items()}
        return cls(**plain)

    @property
    def gates(self) -> Gates:
        """Which positions are published."""
        return Gates(self.uncalibrated_sigma or None, self.max_sigma)

    @property
    def taking(self) -> dict[str, Any]:
        """How images were taken, as arguments of Localizer.open."""
        if self.view == "nadir":
            return {"nadir": NadirOptions(altitude=self.altitude, fov=self.fov)}
        mismatch: Mismatch = "warn" if self.mismatch == "warn" else "refuse"
        return {"headings": self.headings, "intake": Intake(self.fov or None, mismatch=mismatch)}


def defaults() -> dict[str, Any]:
    """The parameters' names and defaults, as a node declares them."""
    return {
        each.name: list(each.default) if isinstance(each.default, tuple) else each.default
        for each in fields(Parameters)
        if each.default is not MISSING
    }
