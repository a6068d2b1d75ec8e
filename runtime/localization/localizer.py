"""Localisation: the most similar tiles for street-level images or nadir frames, and one position fused from them.

from geodtr.runtime.localization.localizer import Localizer

localizer = Localizer.open("bundle", "gallery")
print(localizer.locate("street.jpg").fix)
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from copy import copy
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from geodtr.runtime.arguments import check_argument
from geodtr.runtime.bundle import Bundle, open_bundle
from geodtr.runtime.embed.pipeline import BATCH_SIZE, OnBadFrame, stop
from geodtr.runtime.engines.base import DEFAULT_OPTIONS, EngineOptions
from geodtr.runtime.errors import ConfigError, GalleryError, ImageError
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.gallery.location import GalleryLocation
from geodtr.runtime.gallery.manifest import require_space
from geodtr.runtime.gallery.registry import open_gallery
from geodtr.runtime.geodesy import Near
from geodtr.runtime.images.frames import PIXELS, Frame, as_frame, as_frames, without_pixels
from geodtr.runtime.images.intake import AS_TAKEN, Intake
from geodtr.runtime.localization.answers import Answers, Prepared
from geodtr.runtime.localization.calibration import Conditions
from geodtr.runtime.localization.claims import Claims
from geodtr.runtime.localization.fix import Floats
from geodtr.runtime.localization.nadir.hypotheses import NadirOptions
from geodtr.runtime.localization.nadir.overhead import NadirView, nadir_branch
from geodtr.runtime.localization.nadir.refine import RefineOptions
from geodtr.runtime.localization.result import Localisation
from geodtr.runtime.localization.street import StreetView
from geodtr.runtime.localization.view import QueryView
from geodtr.runtime.prefetch import work_ahead
from geodtr.runtime.progress import Track, untracked
from geodtr.runtime.spec import Descriptors, Images, scorer_name


class Localizer:
    """Finds the references that match a query image, with a bundle and a gallery: by the ground branch, or with `nadir`
    frames that look straight down, by the branch that was trained on such images.

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
        nadir: NadirOptions | None = None,
        refine: RefineOptions | None = None,
    ) -> None:
        """Open the engine for a gallery.

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
            What is known of all images, and whether one that the model was not trained on is refused; street-level
            images alone are checked.
        nadir
            How frames that look straight down are searched; None for street-level images.
        refine
            How a second stage confirms or refuses each nadir frame's places; None leaves it out.

        Raises
        ------
        EmbeddingSpaceMismatch
            Another model built the gallery.
        ConfigError
            The model's panorama has fewer columns than `headings`, or the model cannot take what `intake` states; the
            options do not go together; or the size of the tiles on the ground is not known.
        GalleryError
            The calibration cannot be read.
        MissingDependency
            `refine` needs OpenCV.
        """
        for name, value, of in (("intake", intake, Intake), ("nadir", nadir, NadirOptions | None)):
            check_argument(name, value, of)
        check_argument("refine", refine, RefineOptions | None)
        check_argument("headings", headings, int, 1)
        scorer = bundle.manifest.ground.spec.scorer
        require_space(gallery.name, gallery.manifest, bundle.manifest.embedding_id, scorer)
        if scorer is not None and (nadir is not None or headings != 1):
            raise ConfigError(
                f"The model's scorer is the {scorer_name(scorer)}, which finds the heading of street-level images by "
                "itself. Leave out the headings, and nadir frames to another model."
            )
        if nadir is not None and headings != 1:
            raise ConfigError("Headings of a panorama and a nadir frame do not go together: set its rotations.")
        if nadir is not None and intake != AS_TAKEN:
            raise ConfigError("What is known of street-level images does not go together with nadir frames.")
        if nadir is None and refine is not None:
            raise ConfigError("The second stage is for frames that look straight down: give nadir options as well.")
        self._embedder = bundle.embedder("ground" if nadir is None else nadir_branch(bundle.manifest), options)
        self._taking = headings, intake, nadir, refine
        self._embedding_id = bundle.manifest.embedding_id
        self._engine = Lock()
        self._search_in(gallery)

    def _search_in(self, gallery: Gallery) -> None:
        headings, intake, nadir, refine = self._taking
        how = self._embedder.spec.preprocessing
        self.gallery = gallery
        self._view: QueryView[Any] = (
            StreetView(how, headings, intake) if nadir is None else NadirView(how, gallery, nadir, refine)
        )
        self._claims = Claims(gallery, self._embedding_id, headings, intake.conversion)
        self._answers = Answers(gallery, self._view, self._claims)

    def on(self, gallery: Gallery) -> "Localizer":
        """A second localizer with the same engine and options, for another gallery. Raises as the constructor does."""
        require_space(gallery.name, gallery.manifest, self._embedding_id, self._embedder.spec.scorer)
        other = copy(self)
        other._search_in(gallery)
        return other

    @property
    def positions(self) -> tuple[Floats, Floats]:
        """Latitudes and longitudes of the gallery's tiles in degrees, float64 [N] each, NaN where unknown."""
        return self.gallery.lat, self.gallery.lon

    @property
    def suppositions(self) -> int:
        """How many images the engine embeds at most for one that is asked for: its headings, or its rotations."""
        return self._view.most

    @property
    def conditions(self) -> Conditions:
        """The conditions under which a calibration applies to fixes without a prior."""
        return self.conditions_near(None)

    def conditions_near(self, near: float | None) -> Conditions:
        """The conditions under which a calibration applies to these fixes: without a prior, or with one of the radius
        `near` in metres.
        """
        return self._claims.conditions(near)

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
        nadir: NadirOptions | None = None,
        refine: RefineOptions | None = None,
    ) -> "Localizer":
        """Open a bundle folder and a gallery, a folder or in Milvus (see open_gallery).

        Raises BundleError, GalleryError, and what the constructor raises.
        """
        check_argument("bundle", bundle, Path)
        opened = open_gallery(gallery)
        try:
            return cls(
                open_bundle(Path(bundle)), opened, options, headings=headings, intake=intake, nadir=nadir, refine=refine
            )
        except BaseException:
            opened.close()
            raise

    def close(self) -> None:
        """Close the gallery; the localizer cannot be used afterwards."""
        self.gallery.close()

    def __enter__(self) -> "Localizer":
        return self

    def __exit__(self, *_: object) -> None:
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
            Restricts the search to tiles within this radius; a frame's own prior, if it has one, takes its place.

        Raises
        ------
        ImageError
            The image cannot be embedded.
        ConfigError
            `top` is less than 1.
        """
        prepared = [self.prepare(image)]
        (answer,) = self.answer(prepared, self.embed(prepared), top, near=near)
        return answer

    def locate_frames(
        self,
        images: Path | str | Iterable[Path | str | Images | Frame],
        top: int = 5,
        *,
        near: Near | None = None,
        count: int | None = None,
        on_error: OnBadFrame = stop,
        track: Track = untracked,
    ) -> Iterator[Localisation]:
        """Localise many images, in batches and in order; results are yielded as soon as they are ready. One path is an
        image, a folder, a video or a list.

        Threads decode ahead while the engine runs. Images for which `on_error` returns are left out. `count`, if known,
        is for `track`, which counts answers. Raises ImageError, naming the bad image, if `on_error` does, after the
        answers to the images before it.
        """
        yield from track(self._located(as_frames(images), top, near, on_error), "Localising", count)

    def _located(
        self, frames: Iterator[Frame], top: int, near: Near | None, on_error: OnBadFrame
    ) -> Iterator[Localisation]:
        size = max(1, BATCH_SIZE // self._view.most)
        with closing(work_ahead(self.prepare, frames, ahead=2 * size, bulk=PIXELS)) as loading:
            while batch := list(islice(loading, size)):
                prepared, stopped = _prepared(batch, on_error)
                if prepared:
                    yield from self.answer(prepared, self.embed(prepared), top, near=near)
                if stopped is not None:
                    raise stopped

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

    def prepare(self, image: Path | str | Images | Frame) -> Prepared:
        """Decode, check and preprocess one image. `prepare`, `embed` and `answer` are the stages of `locate`, for those
        that run each in threads of its own. Raises ImageError.
        """
        frame = as_frame(image, "")  # pixels without a source need no name
        return Prepared(without_pixels(frame), self._view.load(frame))

    def embed(self, prepared: Sequence[Prepared]) -> Descriptors:
        """The descriptors, one for each supposition of each image."""
        with self._engine:
            return self._embedder.embed(np.concatenate([each.query.images for each in prepared]))

    def answer(
        self, prepared: Sequence[Prepared], descriptors: Descriptors, top: int = 5, *, near: Near | None = None
    ) -> list[Localisation]:
        """The answers out of what `embed` returned. Otherwise as locate."""
        return self._answers.of(prepared, descriptors, top, near)


def _prepared(
    batch: Sequence[tuple[Frame, Future[Prepared]]], on_error: OnBadFrame
) -> tuple[list[Prepared], Exception | None]:
    """Those images that could be read, up to one at which `on_error` stops, and the error by which it does."""
    prepared = list[Prepared]()
    for frame, loading in batch:
        try:
            prepared.append(loading.result())
        except ImageError as error:
            try:
                on_error(frame, error)
            except Exception as stopped:  # of any type: the caller chooses by what it stops
                return prepared, stopped
    return prepared, None
