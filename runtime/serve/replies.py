"""What the server answers, as values that JSON has; the specification is written from these types.

Knows results; knows nothing of HTTP.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from geodtr.runtime.geodesy import distance
from geodtr.runtime.localization.result import Localisation
from geodtr.runtime.localization.waypoint import Candidate
from geodtr.runtime.sources.tile import Position

Latitude = Annotated[float, Meta(ge=-90, le=90, description="Degrees, WGS 84.")]
Longitude = Annotated[float, Meta(ge=-180, le=180, description="Degrees, WGS 84.")]
Heading = Annotated[float, Meta(description="Degrees clockwise from north.")]
Metres = Annotated[float, Meta(ge=0)]
State = Literal["fix", "no fix", "searching", "tracking", "lost"]
SourceState = Literal["none", "starting", "running", "ended", "lost"]


class Radius(msgspec.Struct, frozen=True):
    """Of all fixes that claim to lie within `metres`, the share `share` does."""

    share: Annotated[float, Meta(ge=0, le=1)]
    metres: Metres


class FixReply(msgspec.Struct, frozen=True):
    """One position out of the nearest tiles. `spread_m` is how far they disagree, `margin` the cosine by which the best
    neighbourhood leads; `within` is empty without a calibration.
    """

    lat: Latitude
    lon: Longitude
    heading: Heading | None
    within: list[Radius]
    spread_m: Metres
    margin: float


class CandidateReply(msgspec.Struct, frozen=True):
    """A tile that may match; `row` is its place in the gallery, for /v1/tiles/{row}. `score` is the cosine."""

    row: Annotated[int, Meta(ge=0)]
    tile: str
    score: float
    lat: Latitude | None
    lon: Longitude | None
    heading: Heading | None


class Stages(msgspec.Struct, frozen=True):
    """Milliseconds: decoding and preprocessing, waiting in queues, the engine's call for the whole batch, the search,
    and all together.
    """

    decode: Metres
    wait: Metres
    embed: Metres
    search: Metres
    total: Metres


class Known(msgspec.Struct, frozen=True):
    """The position in the image's own EXIF, and how far the answer is from it."""

    lat: Latitude
    lon: Longitude
    error_m: Metres | None


class Reply(msgspec.Struct, frozen=True):
    """Where an image was taken. `gallery` is the number of the gallery, which rises when one is replaced.

    `uncalibrated` is the reason why the fix claims no radius, `warning` why the image is none that the model was made
    for; each is null where there is none. `heat` is the score at each of the nearest tiles, [lat, lon, score], if it
    was asked for.
    """

    image: str
    gallery: int
    candidates: list[CandidateReply]
    fix: FixReply | None
    uncalibrated: str | None
    warning: str | None
    known: Known | None
    milliseconds: Stages
    heat: list[tuple[float, float, float]]


class ErrorReply(msgspec.Struct, frozen=True):
    """What is wrong, and what would be right."""

    error: str


class BatchItem(msgspec.Struct, frozen=True):
    """One image of a batch: its answer, or why there is none."""

    image: str
    answer: Reply | None
    error: str | None


class BatchReply(msgspec.Struct, frozen=True):
    """The answers in the order of the images."""

    answers: list[BatchItem]


class GalleryReply(msgspec.Struct, frozen=True):
    """The gallery in use. `bounds` are south, west, north and east in degrees, null without positions; `spacing_m` is
    the distance to the nearest other tile; `zoom` the least zoom of /v1/map. `problem` is why a newer gallery at the
    same place was refused.
    """

    number: int
    references: int
    positioned: int
    finished: bool
    bounds: tuple[float, float, float, float] | None
    spacing_m: Metres | None
    zoom: int
    ground: bool
    problem: str | None


class BundleReply(msgspec.Struct, frozen=True):
    """The model in use."""

    embedding_id: str
    precision: str
    backend: str


class SourceReply(msgspec.Struct, frozen=True):
    """The source of the live view, and what happened to it."""

    name: str
    state: SourceState
    message: str | None


class StateReply(msgspec.Struct, frozen=True):
    """What the server works with."""

    version: str
    bundle: BundleReply
    gallery: GalleryReply
    source: SourceReply
    top: int
    max_bytes: int
    max_pixels: int


class Health(msgspec.Struct, frozen=True):
    """`problem` is null while all is well; the server answers either way."""

    status: Literal["ok", "degraded"]
    problem: str | None


class FrameEvent(msgspec.Struct, frozen=True):
    """One frame of the live view. `frame` is its picture's address; `within_68_m` and `within_95_m` are a fix's
    calibrated claims, or the track's own estimate. `age_s` is how long ago the frame was answered: zero as it comes,
    more for a viewer who comes later.
    """

    number: int
    image: str | None
    time_s: float | None
    state: State
    lat: Latitude | None
    lon: Longitude | None
    heading: Heading | None
    within_68_m: Metres | None
    within_95_m: Metres | None
    frame: str | None
    answer: Reply | None
    age_s: Annotated[float, Meta(ge=0)] = 0.0


class TrailEvent(msgspec.Struct, frozen=True):
    """Where the frames before were, [lat, lon, state], for those that come later."""

    points: list[tuple[float, float, State]]


def reply_of(
    located: Localisation, *, gallery: int, top: int, heat: int, known: Position | None, stages: Stages
) -> Reply:
    """`located` with its `top` candidates, and the scores of the `heat` nearest ones."""
    fix = located.fix
    return Reply(
        image=located.image or "",
        gallery=gallery,
        candidates=[_candidate(each) for each in located.candidates[:top]],
        fix=None
        if fix is None
        else FixReply(
            lat=fix.lat,
            lon=fix.lon,
            heading=located.heading,
            within=[Radius(each.share, each.metres) for each in fix.within],
            spread_m=fix.spread,
            margin=fix.margin,
        ),
        uncalibrated=located.uncalibrated,
        warning=located.doubt,
        known=None
        if known is None
        else Known(
            known.lat, known.lon, None if fix is None else float(distance(fix.lat, fix.lon, known.lat, known.lon))
        ),
        milliseconds=stages,
        heat=[
            (each.place.lat, each.place.lon, round(each.score, 4))
            for each in located.candidates[:heat]
            if each.place.lat is not None and each.place.lon is not None
        ],
    )


def _candidate(of: Candidate) -> CandidateReply:
    place = of.place
    return CandidateReply(of.row, place.id, of.score, place.lat, place.lon, of.heading)
