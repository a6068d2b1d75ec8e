"""One Earth, the ellipsoid of WGS 84: every distance, map and prior is measured on it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodtr.runtime.geodesy import displacement, distance, east_north, moved

KNOWN = (
    ((40.6, -73.8), (51.6, -0.5), 5_551_759.400),
    ((52.52, 13.405), (48.8566, 2.3522), 879_699.316),
    ((-30.01, -15.02), (-30.0, -15.0), 2_225.375),
    ((0.0, 0.0), (0.0, 1.0), 111_319.491),
    ((0.0, 179.9), (0.0, -179.9), 22_263.898),
    ((90.0, 0.0), (89.0, 45.0), 111_693.865),
)
"""Two places in degrees and the metres between them, by GeographicLib's Geodesic.WGS84.Inverse."""

degrees = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@pytest.mark.parametrize(("here", "there", "metres"), KNOWN)
def test_distances_are_the_ellipsoids(here: tuple[float, float], there: tuple[float, float], metres: float) -> None:
    assert float(distance(*here, *there)) == pytest.approx(metres, rel=2e-6)
    assert float(distance(*there, *here)) == pytest.approx(metres, rel=2e-6)
    assert float(distance(*here, *here)) == 0


@given(degrees, degrees)
def test_distances_are_those_on_the_mean_sphere_within_the_flattening(
    here: tuple[float, float], there: tuple[float, float]
) -> None:
    a, b, c, d = np.radians([*here, *there])
    half = np.sin((c - a) / 2) ** 2 + np.cos(a) * np.cos(c) * np.sin((d - b) / 2) ** 2
    sphere = 2 * 6_371_008.8 * np.arcsin(np.sqrt(min(1, half)))
    assert float(distance(*here, *there)) == pytest.approx(sphere, rel=0.0057, abs=1e-6)


@given(st.floats(-80, 80), st.floats(-180, 180), st.floats(-2000, 2000), st.floats(-2000, 2000))
def test_maps_in_metres_are_true_to_the_distance(lat: float, lon: float, east: float, north: float) -> None:
    there = moved(lat, lon, east, north)
    np.testing.assert_allclose(east_north(*there, lat, lon), (east, north), atol=1e-6)
    assert np.hypot(*displacement(lat, lon, *there)) == pytest.approx(
        float(distance(lat, lon, *there)), rel=2e-5, abs=1e-6
    )


def test_a_minute_of_latitude_is_longer_at_the_poles() -> None:
    """A nautical mile is about a minute of latitude: 1,842.9 m at the equator and 1,861.6 m at the poles."""
    for lat, metres in ((0.0, 1842.9), (90.0, 1861.6)):
        _, north = displacement(lat, 0, lat - np.sign(lat - 45) / 60, 0)
        assert abs(float(north)) == pytest.approx(metres, abs=0.5)
    east, _ = displacement(0, 179.9, 0, -179.9)
    assert float(east) == pytest.approx(0.2 * 111_319.49, rel=1e-6)
