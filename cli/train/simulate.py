"""The command that flies through the generated world without GNSS."""

from pathlib import Path
from typing import Annotated

from geodtr.cli.console import output, percent, show_json, track
from geodtr.cli.options import AsJson, BundlePath, Seed, flag, out_option
from geodtr.cli.tables import table


def simulate(
    bundle: BundlePath,
    out: Annotated[Path, out_option("Folder to write; the map of an earlier flight there is used again.")],
    region: Annotated[
        str, flag("--region", "Where in the generated world: another region is unseen ground.")
    ] = "coast",
    minutes: Annotated[float, flag("--minutes N", "Minutes without GNSS, after one with it.")] = 10,
    spacing: Annotated[float, flag("--spacing METRES", "Distance between tiles, which are 60 m wide.")] = 12,
    every: Annotated[int, flag("--every N", "Steps of 0.2 s from a frame to the next.")] = 3,
    prior: Annotated[float, flag("--prior METRES", "Search so far around the autopilot; 0: everywhere.")] = 300,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Fly through the generated world without GNSS, by a bundle's positions, and see how far off the vehicle gets.

    The loop is closed: the vehicle goes where its autopilot, a Kalman filter, steers it by odometry with errors and by
    the positions that it is sent.
    """
    from geodtr.export.simulation.run import PICTURE, TABLE, SimulationOptions, simulate
    from geodtr.runtime.bundle import open_bundle

    options = SimulationOptions(region, minutes, spacing, every, prior or None, seed)
    report = simulate(open_bundle(bundle), out, options, track=track)
    if as_json:
        show_json(report)
        return
    shown = table(f"{minutes:g} minutes without GNSS, {report.tiles} tiles", ("", "metres"))
    shown.add_row("autopilot's position: median", f"{report.median_m:.1f}")
    shown.add_row("worst", f"{report.worst_m:.1f}")
    shown.add_row("median of the last minute", f"{report.last_minute_median_m:.1f}")
    shown.add_row("dead reckoning by the same odometry, at the end", f"{report.dead_reckoning_m:.1f}")
    output.print(shown)
    output.print(f"The track was sure after {percent(report.tracking)} % of frames; {report.sent} positions were sent.")
    output.print(f"See {out / PICTURE} and {out / TABLE}.")
