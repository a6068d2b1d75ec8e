"""A fix is where the candidates agree, and the stated share of fixes is within the stated radius."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2
from tiny_gallery import build, made_tiles

from geodtr import open_gallery
from geodtr.runtime.errors import ConfigError, GalleryError
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.geodesy import circular_mean, distance, east_north, moved
from geodtr.runtime.localization.calibration import (
    FILE_NAME,
    LEAST_RADIUS,
    Conditions,
    FixCalibration,
    calibrate,
    places_sha256,
    read_calibration,
    write_calibration,
)
from geodtr.runtime.localization.fix import CANDIDATES, SIGMAS_68, SIGMAS_95, Fix, candidate_weights, fuse

Floats = NDArray[np.float64]

CONDITIONS = Conditions(
    embedding_id="0" * 16, places_sha256="1" * 64, candidates=CANDIDATES, headings=1, neighbourhood_m=60.0
)


def fuse_one(scores: NDArray[np.floating], lat: Floats, lon: Floats) -> Fix | None:
    (fix,) = fuse(scores[None], lat[None], lon[None])
    return fix


@dataclass(frozen=True, slots=True)
class Flight:
    """Fixes of generated images, and the true positions in degrees [N]."""

    fixes: list[Fix]
    lat: Floats
    lon: Floats

    @property
    def error(self) -> Floats:
        return distance([fix.lat for fix in self.fixes], [fix.lon for fix in self.fixes], self.lat, self.lon)


def fly(seed: int, images: int, *, wrong: float, clarity: float) -> Flight:
    """A grid of tiles 35 m apart. A tile's score is its proximity times `clarity`, plus noise. A share `wrong` of
    the images shows the model nothing.
    """
    random = np.random.default_rng(seed)
    line = np.arange(30) * 35.0
    tiles = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    lat, lon = moved(50.0, 8.0, tiles[:, 0], tiles[:, 1])
    places = random.uniform(0, 29 * 35.0, (images, 2))
    fixes = []
    for place in places:
        seen = 0.0 if random.random() < wrong else clarity * random.uniform(0.3, 1.0)
        scores = seen * np.exp(-((tiles - place) ** 2).sum(axis=1) / (2 * 25.0**2))
        scores += 0.1 * random.standard_normal(len(tiles))
        best = np.argsort(-scores)[:CANDIDATES]
        fix = fuse_one(scores[best].astype(np.float32), lat[best], lon[best])
        assert fix is not None
        fixes.append(fix)
    return Flight(fixes, *moved(50.0, 8.0, places[:, 0], places[:, 1]))


def test_the_best_neighbourhood_wins_over_the_mean_of_all() -> None:
    lat, lon = moved(10.0, 20.0, np.array([0.0, 30.0, 9000.0, -7000.0, 400.0]), np.zeros(5))
    fix = fuse_one(np.array([0.9, 0.9, 0.3, 0.2, 0.1], np.float32), lat, lon)
    assert fix is not None
    east, north = east_north(fix.lat, fix.lon, 10.0, 20.0)
    assert east == pytest.approx(15, abs=0.5)
    assert north == pytest.approx(0, abs=0.5)
    assert fix.margin == pytest.approx(0.6)
    assert fix.within == ()


def test_the_spread_is_larger_if_candidates_disagree() -> None:
    scores = np.linspace(0.5, 0.4, 8).astype(np.float32)
    together = fuse_one(scores, *moved(10.0, 20.0, np.linspace(0, 40, 8), np.zeros(8)))
    apart = fuse_one(scores, *moved(10.0, 20.0, np.linspace(0, 9000, 8), np.zeros(8)))
    assert together is not None
    assert apart is not None
    assert together.spread < 20
    assert apart.spread > 1000


@settings(max_examples=100, deadline=None)
@given(
    scores=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40),
    stretch=st.sampled_from([0.25, 0.5, 2.0, 4.0]),
)
def test_weights_are_decreasing_shares_that_do_not_depend_on_the_models_scale(
    scores: list[float], stretch: float
) -> None:
    ordered = np.sort(np.array(scores))[::-1]
    weight = candidate_weights(ordered)
    assert weight.sum() == pytest.approx(1)
    assert (np.diff(weight) <= 1e-12).all()
    np.testing.assert_allclose(candidate_weights(ordered * stretch), weight, rtol=1e-6, atol=1e-12)


def test_tiles_without_a_position_are_ignored() -> None:
    nowhere = np.array([np.nan, 10.0])
    fix = fuse_one(np.array([0.9, 0.3], np.float32), nowhere, np.array([np.nan, 20.0]))
    assert fix is not None
    assert fix.lat == 10.0
    assert fix.lon == pytest.approx(20.0)
    assert fuse_one(np.array([0.9], np.float32), nowhere[:1], nowhere[:1]) is None
    assert fuse_one(np.empty(0, np.float32), np.empty(0), np.empty(0)) is None


def test_images_are_fused_together_as_each_by_itself() -> None:
    random = np.random.default_rng(5)
    scores = -np.sort(-random.uniform(0, 1, (6, 32)), axis=1).astype(np.float32)
    lat, lon = 50 + random.uniform(0, 2e-3, (6, 32)), 8 + random.uniform(0, 2e-3, (6, 32))
    lat[1, 3] = lon[4, ::2] = lat[5] = np.nan
    together = fuse(scores, lat, lon)
    assert together[5] is None
    assert together == [fuse_one(*each) for each in zip(scores, lat, lon, strict=True)]


def test_a_fix_across_the_date_line_is_on_it() -> None:
    fix = fuse_one(np.array([0.5, 0.5], np.float32), np.zeros(2), np.array([179.9999, -179.9999]))
    assert fix is not None
    assert distance(fix.lat, fix.lon, 0, 180) < 0.1


@settings(max_examples=50, deadline=None)
@given(lat=st.floats(-85, 85), lon=st.floats(-180, 180), east=st.floats(-5000, 5000), north=st.floats(-5000, 5000))
def test_moving_and_measuring_agree(lat: float, lon: float, east: float, north: float) -> None:
    there = moved(lat, lon, east, north)
    np.testing.assert_allclose(east_north(*there, lat, lon), (east, north), atol=1e-4)
    assert float(distance(lat, lon, *there)) == pytest.approx(np.hypot(east, north), rel=0.01, abs=1e-3)


def test_directions_are_averaged_around_north() -> None:
    assert circular_mean(np.array([350.0, 20.0]), np.ones(2)) == pytest.approx(5.0)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), wrong=st.floats(0, 0.5), clarity=st.floats(0.3, 1.0))
def test_the_stated_share_of_new_fixes_is_within_the_radius(seed: int, wrong: float, clarity: float) -> None:
    seen = fly(seed, 600, wrong=wrong, clarity=clarity)
    calibration = calibrate(seen.fixes, seen.lat, seen.lon, CONDITIONS, data="generated")
    flight = fly(seed + 1, 1000, wrong=wrong, clarity=clarity)
    error = flight.error
    claims = [calibration.apply(fix).within for fix in flight.fixes]
    for index, share in enumerate((0.68, 0.95)):
        held = error <= [claim[index].metres for claim in claims]
        # 400 calibration fixes and 1000 new ones: a margin of five standard deviations.
        chance = np.sqrt(share * (1 - share) * (1 / 400 + 1 / 1000))
        assert abs(held.mean() - share) < 5 * chance + 0.02, f"{held.mean():.3f} instead of {share}"


def test_radii_hold_on_average_over_small_calibrations() -> None:
    flights = [fly(seed, 100, wrong=0.3, clarity=0.7) for seed in range(40)]
    held = []
    for seen, new in zip(flights[::2], flights[1::2], strict=True):
        calibration = calibrate(seen.fixes, seen.lat, seen.lon, CONDITIONS, data="generated", shares=(0.68,))
        radii = [calibration.apply(fix).within[0].metres for fix in new.fixes]
        held.append((new.error <= radii).mean())
    assert np.mean(held) > 0.68 - 3 * np.std(held) / np.sqrt(len(held))


def test_radii_hold_for_confident_and_unconfident_fixes() -> None:
    seen, flight = (fly(seed, 2000, wrong=0.3, clarity=0.8) for seed in (1, 2))
    calibration = calibrate(seen.fixes, seen.lat, seen.lon, CONDITIONS, data="generated")
    radii = np.array([calibration.apply(fix).within[0].metres for fix in flight.fixes])
    assert np.quantile(radii, 0.2) < 30
    assert np.quantile(radii, 0.9) > 100
    sure = radii <= np.median(radii)
    for part in (sure, ~sure):
        assert (flight.error <= radii)[part].mean() == pytest.approx(0.68, abs=0.06)


def test_a_share_without_enough_measurements_has_no_radius() -> None:
    seen = fly(0, 80, wrong=0.2, clarity=0.8)
    calibration = calibrate(seen.fixes, seen.lat, seen.lon, CONDITIONS, data="generated", shares=(0.5, 0.999))
    assert [claim.share for claim in calibration.apply(seen.fixes[0]).within] == [0.5]


def test_identical_fixes_can_be_calibrated() -> None:
    fixes = [Fix(1.0, 2.0, 0.0, 0.0)] * 300
    calibration = calibrate(fixes, np.full(300, 1.0), np.full(300, 2.0), CONDITIONS, data="alike")
    assert [claim.metres for claim in calibration.apply(fixes[0]).within] == [LEAST_RADIUS, LEAST_RADIUS]


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    fixes = [Fix(1.0, 2.0, 0.0, 0.0)] * 60
    with pytest.raises(ConfigError, match="between 0 and 1"):
        calibrate(fixes, np.ones(60), np.ones(60), CONDITIONS, data="none", shares=(share,))
    with pytest.raises(ConfigError, match="at least 60"):
        calibrate(fixes[1:], np.ones(59), np.ones(59), CONDITIONS, data="none")


def test_a_calibration_is_stored_unchanged(tmp_path: Path) -> None:
    seen = fly(0, 200, wrong=0.2, clarity=0.8)
    calibration = calibrate(seen.fixes, seen.lat, seen.lon, CONDITIONS, data="generated")
    with open_gallery(build(tmp_path / "g", made_tiles(3))) as gallery:
        assert read_calibration(gallery) is None
        write_calibration(gallery, calibration)
        assert read_calibration(gallery) == calibration


def test_conditions_name_the_difference() -> None:
    lat, lon = np.array([1.0, np.nan]), np.array([2.0, np.nan])
    ours = Conditions(
        embedding_id="0" * 16,
        places_sha256=places_sha256(lat, lon),
        candidates=CANDIDATES,
        headings=1,
        neighbourhood_m=60.0,
    )
    assert places_sha256(lat, lon) != places_sha256(lat[::-1], lon[::-1])
    assert ours.difference(ours) is None
    assert "places_sha256" in (ours.difference(CONDITIONS) or "")


_SMALL: list[Gallery] = []


def _small_gallery(factory: pytest.TempPathFactory) -> Gallery:
    """Built once for all examples."""
    if not _SMALL:
        _SMALL.append(open_gallery(build(factory.mktemp("small") / "g", made_tiles(3))))
    return _SMALL[0]


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 2000), put=st.binary(min_size=1, max_size=4))
def test_a_damaged_calibration_is_read_correctly_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, cut: int, put: bytes
) -> None:
    fixes = [Fix(1.0, 2.0, float(row), row / 300) for row in range(300)]
    gallery = _small_gallery(tmp_path_factory)
    path = Path(write_calibration(gallery, calibrate(fixes, np.ones(300), np.ones(300), CONDITIONS, data="damaged")))
    content = path.read_bytes()
    at = cut % len(content)
    path.write_bytes(content[:at] + put + content[at + len(put) :])
    try:
        calibration = read_calibration(gallery)
    except GalleryError as error:
        assert FILE_NAME in str(error)
    else:
        assert isinstance(calibration, FixCalibration)
        for fix in fixes[::50]:
            assert all(claim.metres >= 0 for claim in calibration.apply(fix).within)


def test_radii_hold_their_share_of_a_circular_normal_distribution() -> None:
    # Its squared distance has the chi-square distribution of two degrees of freedom.
    for sigmas, share in ((SIGMAS_68, 0.68), (SIGMAS_95, 0.95)):
        assert chi2.cdf(sigmas**2, 2) == pytest.approx(share, abs=1e-12)
