"""What may be sent: the track's answer moved by odometry, and what the gates hold back."""

import math

import pytest

from geodtr.runtime.autopilot.messages import Position
from geodtr.runtime.autopilot.options import OLDEST, Gates, HeldBack
from geodtr.runtime.autopilot.prediction import HORIZON, Predictor
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.geodesy import displacement
from geodtr.runtime.localization.waypoint import TrackState, Waypoint
from geodtr.runtime.tracking.odometry import STANDING, Motion, Step

ALLOWED = Gates(uncalibrated_sigma=5.0)
EAST = 90.0


def answered(time: float, state: TrackState = "tracking", radius: float = 15.1, heading: float = EAST) -> Waypoint:
    return Waypoint(state, None, time, -30.0, -15.0, heading, radius, 1.62 * radius)


def driving(predictor: Predictor, seconds: int, start: float = 0.0, metres: float = 10.0, turn: float = 0.0) -> None:
    """A row a second, that arrives at once."""
    predictor.move(Step(start, STANDING, None), start)
    for second in range(1, seconds + 1):
        predictor.move(Step(start + second, Motion(1.0, metres, turn), None), start + second)


def position_of(predictor: Predictor, now: float) -> Position:
    position = predictor.position(now)
    assert isinstance(position, Position), position
    return position


def gone(position: Position) -> tuple[float, float]:
    """Metres east and north of the answer."""
    east, north = displacement(-30.0, -15.0, position.lat, position.lon)
    return float(east), float(north)


def test_between_answers_the_position_goes_on_with_the_odometry() -> None:
    predictor = Predictor(ALLOWED)
    driving(predictor, 3)
    predictor.answer(answered(1.0))
    # Two rows since the answer, and half a second at the last row's speed.
    assert gone(position_of(predictor, 3.5)) == pytest.approx((25.0, 0.0), abs=0.01)


def test_a_row_that_began_before_the_answer_counts_with_the_rest_of_it() -> None:
    predictor = Predictor(ALLOWED)
    driving(predictor, 2)
    predictor.answer(answered(1.25))
    assert gone(position_of(predictor, 2.0)) == pytest.approx((7.5, 0.0), abs=0.01)


def test_a_turn_and_a_drift_to_the_side_are_followed() -> None:
    predictor = Predictor(ALLOWED)
    predictor.move(Step(0.0, STANDING, None), 0.0)
    predictor.answer(answered(0.0, heading=0.0))
    # A quarter of a circle to the right, as a chord; then sideways.
    predictor.move(Step(1.0, Motion(1.0, 10.0, 90.0), None), 1.0)
    predictor.move(Step(2.0, Motion(1.0, 0.0, 0.0, right=4.0), None), 2.0)
    east, north = gone(position_of(predictor, 2.0))
    assert (east, north) == pytest.approx((10 * math.sqrt(0.5), 10 * math.sqrt(0.5) - 4), abs=0.01)


def test_sigma_is_the_beliefs_and_grows_with_the_way() -> None:
    predictor = Predictor(ALLOWED)
    driving(predictor, 4, metres=20.0)
    predictor.answer(answered(4.0))
    assert position_of(predictor, 4.0).sigma == pytest.approx(10.0, abs=0.01)
    predictor.answer(answered(0.0))
    # 80 m by 5 %, and 0.3 m by the root of 4 s.
    assert position_of(predictor, 4.0).sigma == pytest.approx(math.sqrt(10.0**2 + 4.0**2 + 0.6**2), abs=0.01)


def test_the_particles_drawn_for_a_new_start_hold_no_track_back() -> None:
    predictor = Predictor(ALLOWED)
    driving(predictor, 1)
    predictor.answer(Waypoint("tracking", None, 1.0, -30.0, -15.0, EAST, 15.1, 400.0))
    assert position_of(predictor, 1.0).sigma == pytest.approx(10.0, abs=0.01)
    predictor.answer(Waypoint("tracking", None, 1.0, -30.0, -15.0, EAST, 100.0, 400.0))
    assert predictor.position(1.0) == HeldBack("radius too wide")


def test_no_belief_is_narrower_than_what_was_stated() -> None:
    predictor = Predictor(Gates(uncalibrated_sigma=25.0))
    driving(predictor, 1)
    predictor.answer(answered(1.0, radius=3.0))
    assert position_of(predictor, 1.0).sigma == pytest.approx(25.0)


@pytest.mark.parametrize("state", ["lost", "searching"])
def test_what_is_not_tracking_is_not_sent_unless_asked(state: TrackState) -> None:
    for gates, sent in ((ALLOWED, False), (Gates(5.0, send_lost=True), True)):
        predictor = Predictor(gates)
        driving(predictor, 1)
        predictor.answer(answered(1.0, state))
        position = predictor.position(1.0)
        assert isinstance(position, Position) == sent
        assert position == HeldBack(state) or (isinstance(position, Position) and not position.reliable)


def test_a_relocalisation_changes_the_reset_counter() -> None:
    predictor = Predictor(ALLOWED)
    driving(predictor, 8)
    counters = []
    states: list[TrackState] = [
        "searching",
        "tracking",
        "tracking",
        "lost",
        "searching",
        "tracking",
        "tracking",
        "lost",
    ]
    for second, state in enumerate([*states, "tracking"]):
        predictor.answer(answered(float(second), state))
        position = predictor.position(8.0)
        counters.append(position.reset_counter if isinstance(position, Position) else None)
    assert counters[4:] == [None, 1, 1, None, 2]


def test_the_reset_counter_starts_again_after_255() -> None:
    predictor = Predictor(ALLOWED)
    driving(predictor, 1)
    for _ in range(256):
        predictor.answer(answered(1.0, "lost"))
        predictor.answer(answered(1.0))
    assert position_of(predictor, 1.0).reset_counter == 0


def test_odometry_that_stops_ends_the_prediction() -> None:
    predictor = Predictor(ALLOWED)
    driving(predictor, 1)
    predictor.answer(answered(1.0))
    assert isinstance(predictor.position(1.0 + HORIZON - 0.1), Position)
    assert predictor.position(1.0 + HORIZON + 0.1) == HeldBack("the odometry has stopped")


def test_odometry_alone_carries_no_position_for_long() -> None:
    predictor = Predictor(ALLOWED)
    driving(predictor, 7)
    predictor.answer(answered(7 - OLDEST - 0.5))
    assert predictor.position(7.0) == HeldBack("too old")


def test_an_odometry_whose_clock_begins_again_waits_for_the_next_answer() -> None:
    predictor = Predictor(ALLOWED)
    driving(predictor, 2, start=1000.0)
    predictor.answer(answered(1001.0))
    predictor.move(Step(3.0, STANDING, None), 1003.0)
    assert predictor.position(1003.0) == HeldBack("no answer yet")
    predictor.answer(answered(1001.0))  # that was still on its way
    assert predictor.position(1003.0) == HeldBack("the odometry's clock jumped")
    predictor.answer(answered(3.0))
    assert gone(position_of(predictor, 1003.0)) == pytest.approx((0.0, 0.0), abs=0.01)


def test_without_an_answer_or_a_row_there_is_no_position() -> None:
    predictor = Predictor(ALLOWED)
    assert predictor.position(0.0) == HeldBack("no answer yet")
    predictor.answer(answered(0.0))
    assert predictor.position(0.0) == HeldBack("no odometry")
    predictor.answer(Waypoint("searching", None, 0.0))
    assert predictor.position(0.0) == HeldBack("searching")


def test_a_calibrated_fix_claims_its_own_sigma() -> None:
    fix = Waypoint("fix", None, None, -30.0, -15.0, None, 15.1, 30.0)
    position = Gates().admit(fix, track=False, age=0.5)
    assert isinstance(position, Position)
    assert position.sigma == pytest.approx(10.0, abs=0.01)
    assert position.age == 0.5


@pytest.mark.parametrize(
    ("fix", "age", "reason"),
    [
        (Waypoint("no fix"), 0.0, "no fix"),
        (Waypoint("fix", None, None, -30.0, -15.0), 0.0, "uncalibrated"),
        (Waypoint("fix", None, None, -30.0, -15.0, None, 15.1, 200.0), 0.0, "radius too wide"),
        (Waypoint("fix", None, None, -30.0, -15.0, None, 100.0, None), 0.0, "radius too wide"),
        (Waypoint("fix", None, None, -30.0, -15.0, None, 15.1, 30.0), 6.0, "too old"),
    ],
)
def test_what_a_fix_is_held_back_for(fix: Waypoint, age: float, reason: str) -> None:
    assert Gates().admit(fix, track=False, age=age) == HeldBack(reason)


def test_an_uncalibrated_fix_claims_what_was_stated() -> None:
    position = Gates(uncalibrated_sigma=30.0).admit(Waypoint("fix", None, None, -30.0, -15.0), track=False)
    assert isinstance(position, Position)
    assert position.sigma == 30.0


def test_a_radius_of_nothing_is_not_certainty() -> None:
    fix = Waypoint("fix", None, None, -30.0, -15.0, None, 0.0, 0.0)
    position = Gates().admit(fix, track=False)
    assert isinstance(position, Position)
    assert position.sigma > 0


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_a_sigma_that_is_none_is_refused(sigma: float) -> None:
    with pytest.raises(ConfigError, match="uncalibrated_sigma"):
        Gates(uncalibrated_sigma=sigma)
    with pytest.raises(ConfigError, match="max_sigma"):
        Gates(max_sigma=sigma)


def test_a_sigma_that_its_own_gate_holds_back_is_refused() -> None:
    with pytest.raises(ConfigError, match="above the largest that is sent, 50"):
        Gates(uncalibrated_sigma=60.0)
