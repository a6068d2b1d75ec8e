"""A link to an autopilot: positions out at a fixed rate, its reports in, all of it in a .tlog where one is asked for.

A thread of its own speaks on the link, so that neither the engine nor a slow camera keeps a message waiting.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from queue import SimpleQueue
from threading import Event, Thread
from types import SimpleNamespace, TracebackType
from typing import Any

from geodtr.runtime.autopilot.messages import (
    RATES,
    Position,
    Stamp,
    external_position,
    global_position_sensor,
    gps_input,
    odometry,
    require_pymavlink,
)
from geodtr.runtime.autopilot.options import HeldBack, LinkOptions
from geodtr.runtime.autopilot.prediction import Predictor
from geodtr.runtime.autopilot.settings import Settings
from geodtr.runtime.autopilot.tlog import Tlog, check_tlog
from geodtr.runtime.autopilot.transport import Transport
from geodtr.runtime.autopilot.vehicle import INTERVALS, Vehicle
from geodtr.runtime.autopilot.watch import Watch
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.localization.waypoint import Waypoint
from geodtr.runtime.tracking.odometry import Odometry, Step

PATIENCE = 5.0
"""Seconds without a heartbeat after which an autopilot counts as silent."""
_HEARTBEAT = 1.0
_LONGEST_WAIT = 0.05  # seconds until closing is noticed, unless TCP is dialled again or a name looked up meanwhile


class Link:
    """A link to an autopilot, open inside `with`. Give it answers by `send`, and rows of odometry by `follow` unless
    they are its own.

    Sends whether or not an autopilot is heard; `report` takes its silence, its return and what else goes wrong in
    flight, from another thread.
    """

    def __init__(self, options: LinkOptions, *, track: bool, live: bool = False, report: Callable[[str], None]) -> None:
        """`track`: answers are points of a track, sent at a rate; else each is a fix and sent once. `live`: their times
        are this computer's clock.

        Raises MissingDependency without pymavlink, ConfigError for what only a track can give, what check_tlog raises.
        """
        common = require_pymavlink()
        if not track and options.kind in ("gps-input", "odometry"):
            raise ConfigError(
                f"{options.kind} is for a steady stream, which only a track gives. Add odometry (--track), or send "
                "global-position-sensor or external-position."
            )
        if track and options.gates.uncalibrated_sigma is None:
            raise ConfigError(
                "The radii of a track are the filter's own belief, uncalibrated, and so none of its positions would be "
                "sent. State the standard deviation to claim at least, in metres: --uncalibrated-sigma 15"
            )
        if options.tlog is not None:
            check_tlog(options.tlog)
        self.sent = 0
        self.held_back = Counter[str]()
        """How many positions were not sent, by reason."""
        self._options = options
        self._track, self._live, self._report = track, live, report
        self._predictor = Predictor(options.gates)
        self._fixes: SimpleQueue[tuple[Waypoint, float | None]] = SimpleQueue()
        self._vehicle = Vehicle()
        self._mavlink = common
        self._mav = common.MAVLink(SimpleNamespace(write=self._put), 1, common.MAV_COMP_ID_VISUAL_INERTIAL_ODOMETRY)
        self._mav.robust_parsing = True  # bytes that are no message are skipped
        self._own_odometry = False
        self._watch = Watch(options.address, PATIENCE, report)
        self._settings = Settings(options.kind, report)
        self._next_request = 0.0
        self._stopped = Event()
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="mavlink", daemon=True)

    @property
    def address(self) -> str:
        return self._options.address

    def odometry(self) -> Odometry:
        """The vehicle's own, from its ATTITUDE and LOCAL_POSITION_NED, as it comes; it ends when the link is closed.
        Raises what broke the link's thread.
        """
        self._own_odometry = True
        odometry = self._vehicle.odometry(self.address)
        return replace(odometry, steps=self._until_broken(odometry.steps))

    def follow(self, odometry: Odometry, *, paced: bool) -> Odometry:
        """The same odometry, whose rows the link takes as they are read. `paced`: a recording, each of whose rows waits
        for its time.
        """
        return replace(odometry, steps=self._followed(odometry.steps, paced))

    def send(self, waypoint: Waypoint) -> None:
        """Take an answer. Raises what broke the link's thread."""
        self._check()
        if self._track:
            self._predictor.answer(waypoint)
            return
        taken = None
        if self._live and waypoint.time_s is not None:
            # A clock that was set back makes no answer older.
            taken = time.monotonic() - max(0.0, time.time() - waypoint.time_s)
        self._fixes.put((waypoint, taken))

    def __enter__(self) -> "Link":
        """Raises UserError when the link or the .tlog cannot be opened."""
        self._transport = Transport(self.address)
        try:
            self._tlog = None if self._options.tlog is None else Tlog(self._options.tlog)
        except BaseException:
            self._transport.close()
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what waits, and nothing more. Raises what broke the link's thread, unless another error is under way."""
        self._stopped.set()
        self._thread.join()
        if error is None:
            self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _until_broken(self, rows: Iterable[Step]) -> Iterator[Step]:
        yield from rows
        self._check()

    def _followed(self, rows: Iterable[Step], paced: bool) -> Iterator[Step]:
        ahead: float | None = None
        for row in rows:
            if ahead is None:
                ahead = time.monotonic() - row.time
            if paced:
                time.sleep(max(0.0, row.time + ahead - time.monotonic()))
            self._predictor.move(row, time.monotonic())
            yield row

    def _run(self) -> None:
        try:
            self._speak()
        except BaseException as error:  # raised again in the caller's thread
            self._error = error
        finally:
            self._vehicle.close()
            self._transport.close()
            if self._tlog is not None:
                self._tlog.close()

    def _speak(self) -> None:
        period = 1 / (self._options.rate or RATES[self._options.kind])
        began = now = time.monotonic()
        next_heartbeat, next_position = now, now
        while not self._stopped.is_set():
            wait = min(next_heartbeat, next_position) - now
            self._hear(self._transport.receive(min(max(0.0, wait), _LONGEST_WAIT)))
            now = time.monotonic()
            if now >= next_heartbeat:
                self._send_heartbeat()
                self._watch.look(now, self._vehicle.heard, own_odometry=self._own_odometry)
                self._watch_record()
                next_heartbeat = now + _HEARTBEAT
            # Time stamps would jump when the autopilot's clock becomes known; a silent one is not waited for.
            ready = self._vehicle.clock.known or now - began > PATIENCE
            if ready and not self._track:
                self._send_fixes(now)
            if now >= next_position:
                if ready and self._track:
                    self._send_position(self._predictor.position(now), now)
                next_position = max(next_position + period, now)  # no burst after a pause
        self._send_fixes(time.monotonic())
        self._watch_record()

    def _hear(self, data: bytes) -> None:
        if not data:
            return
        for message in self._mav.parse_buffer(data) or ():
            now = time.monotonic()
            if message.get_type() == "BAD_DATA":
                continue
            self._log(bytes(message.get_msgbuf()))
            row = self._vehicle.hear(message, now)
            if row is not None and self._own_odometry:
                self._watch.moved(now)
                self._predictor.move(row, now)
            if message.get_srcSystem() == self._vehicle.system:
                self._answer(message, now)

    def _answer(self, message: Any, now: float) -> None:
        name = message.get_type()
        if name == "HEARTBEAT":
            self._mav.srcSystem = self._vehicle.system  # this program is a part of that vehicle
            if now >= self._next_request:
                self._next_request = now + PATIENCE
                self._request()
        elif name == "TIMESYNC" and message.tc1 == 0:
            # By the clock that positions are stamped with: the offset that the autopilot measures is about zero.
            stamp = self._vehicle.clock.stamp(now, time.time())
            self._mav.send(self._mavlink.MAVLink_timesync_message(stamp.usec * 1000, message.ts1))
        elif name == "PARAM_VALUE" and message.get_srcComponent() == self._vehicle.component:
            self._settings.hear(message, self._vehicle.autopilot)
        elif name == "COMMAND_ACK" and message.command == self._mavlink.MAV_CMD_EXTERNAL_POSITION_ESTIMATE:
            result = self._mavlink.enums["MAV_RESULT"].get(message.result)
            name = str(message.result) if result is None else result.name
            self._watch.refused(None if message.result == self._mavlink.MAV_RESULT_ACCEPTED else name)

    def _request(self) -> None:
        """Ask the autopilot for what is read of it: for parameters until they come, for messages again and again, since
        a request may be lost, and a reboot forgets it.
        """
        vehicle = self._vehicle
        for parameter in self._settings.unknown(vehicle.autopilot):
            self._mav.send(
                self._mavlink.MAVLink_param_request_read_message(
                    vehicle.system, vehicle.component, parameter.encode(), -1
                )
            )
        for name, seconds in INTERVALS.items():
            self._command(self._mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, name, seconds * 1e6)
        # PX4 sends its origin when it is set, and not at the interval.
        self._command(self._mavlink.MAV_CMD_REQUEST_MESSAGE, "GPS_GLOBAL_ORIGIN", 0.0)

    def _command(self, command: int, message: str, value: float) -> None:
        """Send a command whose first parameter is the number of a message, and its second `value`."""
        number = getattr(self._mavlink, f"MAVLINK_MSG_ID_{message}")
        system, component = self._vehicle.system, self._vehicle.component
        zeros = (0.0,) * 5
        self._mav.send(self._mavlink.MAVLink_command_long_message(system, component, command, 0, number, value, *zeros))

    def _send_heartbeat(self) -> None:
        common = self._mavlink
        kind, none = common.MAV_TYPE_ONBOARD_CONTROLLER, common.MAV_AUTOPILOT_INVALID
        self._mav.send(common.MAVLink_heartbeat_message(kind, none, 0, 0, common.MAV_STATE_ACTIVE, 3))

    def _watch_record(self) -> None:
        """Report why the .tlog ended, once."""
        if self._tlog is not None and self._tlog.error is not None:
            self._report(self._tlog.error)
            self._tlog = None

    def _send_fixes(self, now: float) -> None:
        while not self._fixes.empty():
            waypoint, taken = self._fixes.get()
            age = 0.0 if taken is None else now - taken
            self._send_position(self._options.gates.admit(waypoint, track=False, age=age), now)

    def _send_position(self, position: Position | HeldBack, now: float) -> None:
        if isinstance(position, HeldBack):
            self.held_back[position.reason] += 1
            return
        message = self._message(position, self._vehicle.clock.stamp(now, time.time()))
        if message is None:
            self.held_back["the autopilot has not reported its origin and attitude"] += 1
            return
        self._mav.send(message)
        self.sent += 1

    def _message(self, position: Position, stamp: Stamp) -> Any | None:
        """The message of the kind asked for; None where the vehicle has not reported yet what it needs."""
        kind, vehicle = self._options.kind, self._vehicle
        if kind == "global-position-sensor":
            return global_position_sensor(position, stamp, vehicle.system, vehicle.component)
        if kind == "gps-input":
            return gps_input(position, stamp)
        if kind == "external-position":
            return external_position(position, stamp, vehicle.system, vehicle.component)
        if vehicle.origin is None or vehicle.attitude is None:
            return None
        # An EKF without a position reports no height either: to wait for it would be to wait for its position.
        down = 0.0 if vehicle.down is None else vehicle.down
        return odometry(position, stamp, vehicle.origin, vehicle.attitude, down, vehicle.autopilot)

    def _put(self, message: bytes) -> None:
        self._transport.send(message)
        self._log(message)

    def _log(self, message: bytes) -> None:
        if self._tlog is not None:
            self._tlog.write(message)
