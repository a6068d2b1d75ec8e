"""Which calibration of a gallery applies to a fix: it states its conditions, and claims nothing under others."""

from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.localization.calibration import Conditions, FixCalibration, places_sha256, read_calibration
from geodtr.runtime.localization.fix import CANDIDATES, NEIGHBOURHOOD

REMEMBERED = 64
"""Radii of priors whose calibration is kept in memory."""

Applicable = tuple[FixCalibration | None, str | None]
"""A calibration, or why none applies."""


class Claims:
    """The calibrations of one gallery, for fixes by a model and a way to take images. Raises GalleryError where the
    calibration without a prior cannot be read.
    """

    def __init__(self, gallery: Gallery, embedding_id: str, headings: int, images: str) -> None:
        self._gallery = gallery
        self._how = embedding_id, headings, images
        self._places: str | None = None  # of a million tiles, the hash takes an eighth of a second
        self._kept: dict[float | None, Applicable] = {None: self._read(None)}

    def conditions(self, near: float | None) -> Conditions:
        """The conditions of fixes without a prior, or with one of the radius `near` in metres."""
        if self._places is None:
            self._places = places_sha256(self._gallery.lat, self._gallery.lon)
        embedding_id, headings, images = self._how
        return Conditions(
            embedding_id=embedding_id,
            places_sha256=self._places,
            candidates=CANDIDATES,
            headings=headings,
            neighbourhood_m=NEIGHBOURHOOD,
            near_m=near,
            images=images,
        )

    def applicable(self, near: float | None) -> Applicable:
        """The gallery's calibration, or the reason why none applies under these conditions. Raises GalleryError."""
        kept = self._kept.get(near)
        if kept is None:
            kept = self._read(near)
            if len(self._kept) >= REMEMBERED:  # as many as there are radii, where each frame has its own
                self._kept.clear()
            self._kept[near] = kept
        return kept

    def __len__(self) -> int:
        """Radii that are kept in memory."""
        return len(self._kept)

    def _read(self, near: float | None) -> Applicable:
        calibration = read_calibration(self._gallery, near)
        if calibration is None and near is not None:
            return None, f"the gallery has no calibration for a prior of {near:g} m"
        if calibration is None:
            return None, "the gallery has no calibration"
        difference = calibration.conditions.difference(self.conditions(near))
        return (calibration, None) if difference is None else (None, difference)
