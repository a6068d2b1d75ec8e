"""The options of `localize` that send positions to an autopilot."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodtr.cli.console import messages, warn
from geodtr.export.options import from_given, option
from geodtr.runtime.names import MavlinkMessage

if TYPE_CHECKING:
    from geodtr.runtime.autopilot.link import Link

FROM_LINK = "mavlink"
"""The odometry of --track that is the autopilot's own."""


@dataclass(frozen=True, slots=True)
class AutopilotOptions:
    """What the group of options holds; bounds are checked by `LinkOptions` and `Gates`."""

    mavlink: str | None = option(
        None, "Send positions to udpout:HOST:PORT, udpin:HOST:PORT, tcp:HOST:PORT or serial:DEVICE[:BAUD].", "ADDRESS"
    )
    message: MavlinkMessage = option("global-position-sensor", "The message that carries a position.")
    mavlink_rate: float | None = option(
        None, "Messages a second of a track.", "HZ", shown="5, odometry 30, external-position 1"
    )
    uncalibrated_sigma: float | None = option(
        None,
        "Send positions without a calibrated radius too, which all of a track are; claim at least this standard "
        "deviation.",
        "METRES",
    )
    max_sigma: float = option(
        50.0,
        "Hold back positions of a larger standard deviation, and fixes whose 95 % radius is wider than its.",
        "METRES",
    )
    send_lost: bool = option(False, "Send a track's positions while it is searching or lost, too.")
    tlog: Path | None = option(None, "Record every message, in and out, in a new .tlog.", "FILE.tlog")


def link_of(given: Mapping[str, Any], *, track: bool, live: bool) -> "Link | None":
    """The link that the options ask for, not yet open."""
    from geodtr.runtime.autopilot.link import Link
    from geodtr.runtime.autopilot.options import Gates, LinkOptions

    options: AutopilotOptions = from_given(AutopilotOptions, given)
    if options.mavlink is None:
        return None
    gates = Gates(options.uncalibrated_sigma, options.max_sigma, options.send_lost)
    link = LinkOptions(options.mavlink, options.message, options.mavlink_rate, gates, options.tlog)
    return Link(link, track=track, live=live, report=warn)


@contextmanager
def opened(link: "Link") -> "Iterator[Link]":
    """The link at work; in the end, how many positions went out, and why others did not."""
    try:
        with link:
            yield link
    finally:
        text = f"Sent {link.sent} positions to {link.address}"
        if link.held_back:
            reasons = ", ".join(f"{count} {reason}" for reason, count in link.held_back.most_common())
            text += f"; held back: {reasons}"
        messages.print(text)
