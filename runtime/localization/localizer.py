"""Localisation: the most similar tiles for street-level images, and one position fused from them.

from geodtr.runtime.localization.localizer import Localizer

localizer = Localizer.open("bundle", "gallery")
print(localizer.locate("street.jpg").fix)
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from types import TracebackType

import numpy as np

from geodtr.runtime.bundle import Bundle, open_bundle
from geodtr.runtime.embed.pipeline import BATCH_SIZE, OnBadFrame, stop
from geodtr.runtime.engines.base import DEFAULT_OPTIONS, EngineOptions
from geodtr.runtime.errors import ConfigError, GalleryError, ImageError
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.gallery.location import GalleryLocation
from geodtr.runtime.gallery.manifest import require_space
from geodtr.runtime.gallery.registry import open_gallery
from geodtr.runtime.geodesy import Near
from geodtr.runtime.images.frames import PIXELS, Frame, as_frames, decode_frame, preprocess_frame
from geodtr.runtime.images.intake import AS_TAKEN, Intake
from geodtr.runtime.localization.calibration import Conditions, FixCalibration, places_sha256, read_calibration
from geodtr.runtime.localization.fix import CANDIDATES, NEIGHBOURHOOD, Floats, fuse
from geodtr.runtime.localization.headings import TurnedHits, align, best_turns, turn
from geodtr.runtime.localization.result import Candidate, Localisation
from geodtr.runtime.prefetch import work_ahead
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.search.exact import Hits
from geodtr.runtime.spec import Images

_Applicable = tuple[FixCalibration | None, str | None]
"""A calibration, or why none applies."""


@dataclass(frozen=True, slots=True)
class _Query:
    """An image preprocessed for the engine, uint8 [N, H, W, 3], rotated to each of N headings; `headings` is None if
    headings are neither searched nor stated by the file. `doubt`: see Localisation.
    """

    images: Images
    headings: Floats | None
    doubt: str | None


class Localizer:
    """Finds the references that match a query image, with a bundle's ground branch and a gallery.

    Bundle and gallery must be of the same embedding space. Safe to call from several threads: they decode and search
    in parallel, and use the engine one after another.

    Examples
    --------
    >>> from geodtr import Localizer
    >>> with Localizer.open("bundle", "map") as localizer:
    ...     answer = localizer.locate("street.png", top=3)
    >>> len(answer.candidates), answer.fix is not None
    (3, True)
    """

    def __init__(
        self,
        bundle: Bundle,
        gallery: Gallery,
        options: EngineOptions = DEFAULT_OPTIONS,
        *,
        headings: int = 1,
        intake: Intake = AS_TAKEN,
    ) -> None:
        """Open the ground engine for a gallery.

        A fix claims a radius if the gallery has a calibration (`fixes.json`) for exactly these conditions.

        Parameters
        ----------
        bundle, gallery
            Of the same embedding space.
        options
            Options of the engine.
        headings
            Number of rotations of a panorama to search if its heading is unknown; 1 if images are aligned to north.
            Images that are not full panoramas are never rotated. With 1, a panorama whose file states its heading
            (GPano) is aligned by it.
        intake
            What is known of all images, and whether one that the model was not trained on is refused.

        Raises
        ------
        EmbeddingSpaceMismatch
            Another model built the gallery.
        ConfigError
            The model's panorama has fewer columns than `headings`, or the model cannot take what `intake` states.
        GalleryError
            The calibration cannot be read.
        """
        require_space(gallery.name, gallery.manifest, bundle.manifest.embedding_id)
        self._embedder = bundle.embedder("ground", options)
        self._how = self._embedder.spec.preprocessing
        if not 1 <= headings <= self._how.width:
            raise ConfigError(f"headings is {headings}; allowed are 1 to {self._how.width}, the model's columns.")
        intake.check(self._how.imagery)
        self._intake = intake
        self.gallery = gallery
        self._embedding_id = bundle.manifest.embedding_id
        self._headings = headings
        self._engine = Lock()
        self._calibrations: dict[float | None, _Applicable] = {None: self._applicable(None)}

    @property
    def positions(self) -> tuple[Floats, Floats]:
        """Latitudes and longitudes of the gallery's tiles in degrees, float64 [N] each, NaN where unknown."""
        return self.gallery.lat, self.gallery.lon

    @property
    def conditions(self) -> Conditions:
        """The conditions under which a calibration applies to fixes without a prior."""
        return self.conditions_near(None)

    def conditions_near(self, near: float | None) -> Conditions:
        """The conditions under which a calibration applies to these fixes: without a prior, or with one of the radius
        `near` in metres.
        """
        return Conditions(
            embedding_id=self._embedding_id,
            places_sha256=places_sha256(*self.positions),
            candidates=CANDIDATES,
            headings=self._headings,
            neighbourhood_m=NEIGHBOURHOOD,
            near_m=near,
        )

    def require_positions(self, what: str) -> None:
        """Raise GalleryError when no tile of the gallery has a position, and `what` needs some."""
        if not self.gallery.info.positioned:
            raise GalleryError(
                f"{self.gallery.name} knows no positions, and {what} needs some. Build it from a source that gives "
                "coordinates: geodtr-export gallery build BUNDLE SPEC --out GALLERY"
            )

    @classmethod
    def open(
        cls,
        bundle: Path | str,
        gallery: GalleryLocation | Path | str,
        options: EngineOptions = DEFAULT_OPTIONS,
        *,
        headings: int = 1,
        intake: Intake = AS_TAKEN,
    ) -> "Localizer":
        """Open a bundle folder and a gallery, a folder or in Milvus (see open_gallery).

        Raises BundleError, GalleryError, and what the constructor raises.
        """
        opened = open_gallery(gallery)
        try:
            return cls(open_bundle(Path(bundle)), opened, options, headings=headings, intake=intake)
        except BaseException:
            opened.close()
            raise

    def close(self) -> None:
        """Close the gallery; the localizer cannot be used afterwards."""
        self.gallery.close()

    def __enter__(self) -> "Localizer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def locate(self, image: Path | str | Images | Frame, top: int = 5, *, near: Near | None = None) -> Localisation:
        """Localise one image.

        Parameters
        ----------
        image
            A file, a camera's pixels, uint8 RGB [h, w, 3], or a source's frame.
        top
            Number of tiles to return; fewer if the gallery has fewer.
        near
            Restricts the search to tiles within this radius.

        Raises
        ------
        ImageError
            The image cannot be embedded.
        ConfigError
            `top` is less than 1.
        """
        frame = _framed(image)
        query = self._load(frame)
        (hits,) = self._search([query], top, near)
        return self._answer(frame, query, hits, top, near)

    def locate_frames(
        self,
        images: Iterable[Path | str | Images | Frame],
        top: int = 5,
        *,
        near: Near | None = None,
        count: int | None = None,
        on_error: OnBadFrame = stop,
        track: Track = untracked,
    ) -> Iterator[Localisation]:
        """Localise many images, in batches and in order; results are yielded as soon as they are ready.

        Threads decode ahead while the engine runs. Images for which `on_error` returns are left out. `count`, if known,
        is for `track`. Raises ImageError, naming the bad image, if `on_error` does.
        """
        size = max(1, BATCH_SIZE // self._headings)
        with closing(work_ahead(self._load, as_frames(images), ahead=2 * size, bulk=PIXELS)) as loading:
            each = iter(track(loading, "Localising", count))
            while batch := list(islice(each, size)):
                loaded = _loaded(batch, on_error)
                results = self._search([query for _, query in loaded], top, near) if loaded else []
                for (frame, query), hits in zip(loaded, results, strict=True):
                    yield self._answer(frame, query, hits, top, near)

    def locate_live(
        self,
        frames: Iterable[Frame],
        top: int = 5,
        *,
        near: Near | None = None,
        on_error: OnBadFrame = stop,
        track: Track = untracked,
    ) -> Iterator[Localisation]:
        """Localise each frame as it arrives. The next one is requested only after the last result, so that a camera's
        frame is always the newest. Otherwise as locate_frames.
        """
        for frame in track(frames, "Localising", None):
            try:
                located = self.locate(frame, top, near=near)
            except ImageError as error:
                on_error(frame, error)
            else:
                yield located

    def _load(self, frame: Frame) -> _Query:
        """Decode, check, preprocess and turn one image."""
        taken = self._intake.take(decode_frame(frame), self._how.imagery, frame.called)
        pixels = preprocess_frame(frame, taken.image, self._how)
        turns = None
        if self._headings > 1 and taken.full_turn:
            turns = turn(pixels, self._headings)
        elif taken.heading is not None:
            turns = align(pixels, taken.heading)
        return (
            _Query(pixels[None], None, taken.doubt)
            if turns is None
            else _Query(turns.images, turns.headings, taken.doubt)
        )

    def _search(self, queries: Sequence[_Query], top: int, near: Near | None) -> list[TurnedHits]:
        """The nearest tiles of each query over its headings, at least as many as a fix needs."""
        if top < 1:
            raise ConfigError(f"top is {top}; it must be at least 1.")
        with self._engine:
            descriptors = self._embedder.embed(np.concatenate([query.images for query in queries]))
        hits = self.gallery.search(descriptors, max(top, CANDIDATES), near)
        results = list[TurnedHits]()
        start = 0
        for query in queries:
            part = slice(start, start + len(query.images))
            headings = np.full(1, np.nan) if query.headings is None else query.headings
            results.append(best_turns(Hits(hits.rows[part], hits.scores[part]), headings))
            start = part.stop
        return results

    def _answer(self, frame: Frame, query: _Query, hits: TurnedHits, top: int, near: Near | None) -> Localisation:
        tiles = self.gallery.tiles(hits.rows[: max(top, CANDIDATES)].tolist())
        lat, lon = (
            np.array([getattr(tile, name) for tile in tiles[:CANDIDATES]], np.float64) for name in ("lat", "lon")
        )
        fix = fuse(hits.scores[:CANDIDATES], lat, lon)
        headings = [None if np.isnan(heading) else float(heading) for heading in hits.headings]
        shown = zip(hits.rows[:top].tolist(), tiles, hits.scores.tolist(), headings, strict=False)
        candidates = tuple(Candidate(*each) for each in shown)
        radius = None if near is None else near.radius
        if radius not in self._calibrations:
            self._calibrations[radius] = self._applicable(radius)
        calibration, uncalibrated = self._calibrations[radius]
        if near is not None and not candidates:
            uncalibrated = "no tile lies within the prior"
        elif fix is None:
            uncalibrated = "no tile found has a position"
        elif query.doubt is not None:
            uncalibrated = f"the model was not trained on such images: {query.doubt}"
        elif self._headings > 1 and headings[0] is None:
            uncalibrated = "the image is no full turn, so no headings were searched"
        elif calibration is not None:
            fix = calibration.apply(fix)
        heading = headings[0] if headings else None
        return Localisation(frame.name or None, frame.time, candidates, fix, heading, uncalibrated, query.doubt)

    def _applicable(self, near: float | None) -> _Applicable:
        """The gallery's calibration, or the reason why none applies under these conditions."""
        calibration = read_calibration(self.gallery, near)
        if calibration is None and near is not None:
            return None, f"the gallery has no calibration for a prior of {near:g} m (--near {near:g})"
        if calibration is None:
            return None, "the gallery has no calibration"
        difference = calibration.conditions.difference(self.conditions_near(near))
        return (calibration, None) if difference is None else (None, difference)


def _framed(image: Path | str | Images | Frame) -> Frame:
    """Pixels without a source need no name."""
    if isinstance(image, Frame):
        return image
    return Frame("", image) if isinstance(image, np.ndarray) else Frame(str(image), Path(image))


def _loaded(batch: Sequence[tuple[Frame, Future[_Query]]], on_error: OnBadFrame) -> list[tuple[Frame, _Query]]:
    """The queries of those images that could be read."""
    loaded = list[tuple[Frame, _Query]]()
    for frame, loading in batch:
        try:
            loaded.append((frame, loading.result()))
        except ImageError as error:
            on_error(frame, error)
    return loaded
