"""The command `serve`: the HTTP API and the live view."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geodtr.cli.console import messages, warn
from geodtr.cli.dataclass_options import with_options
from geodtr.cli.deploy.image_options import PANEL, ImageOptions
from geodtr.cli.options import Every, GivenBundle, GivenGallery, Headings, Threads, parse_near

if TYPE_CHECKING:
    from geodtr.runtime.geodesy import Near
    from geodtr.runtime.images.frames import Frame
    from geodtr.runtime.serve.source import Sourced
    from geodtr.runtime.tracking.synchronize import Moment

_LIVE = "Live view"
_LIMITS = "Network and limits"


@with_options({PANEL: (ImageOptions,)}, leave_out=("mismatch",))
def serve(
    bundle: GivenBundle,
    place: GivenGallery,
    camera: Annotated[
        str | None,
        typer.Option(
            "--camera",
            metavar="CAMERA",
            help="Show a camera: camera:INDEX, an address (rtsp://, udp://), or gst:PIPELINE.",
            show_default=False,
            rich_help_panel=_LIVE,
        ),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            "--video", metavar="FILE", help="Play a video at its own pace.", show_default=False, rich_help_panel=_LIVE
        ),
    ] = None,
    watch: Annotated[
        Path | None,
        typer.Option(
            "--watch",
            metavar="FOLDER",
            help="Show the images of a folder, and those that come.",
            show_default=False,
            rich_help_panel=_LIVE,
        ),
    ] = None,
    odometry: Annotated[
        Path | None,
        typer.Option(
            "--track",
            metavar="ODOMETRY.csv",
            help="Fuse the frames of a video or a camera with speed and yaw; - reads rows from standard input.",
            show_default=False,
            rich_help_panel=_LIVE,
        ),
    ] = None,
    every: Every = 1,
    near: Annotated[
        str | None,
        typer.Option(
            "--near",
            metavar="LAT,LON,RADIUS",
            help="Search frames only in tiles within RADIUS metres.",
            show_default="all",
            rich_help_panel=_LIVE,
        ),
    ] = None,
    headings: Headings = 1,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Listen here; beyond this machine only with --token-file.",
            rich_help_panel=_LIMITS,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            "--port", min=0, max=65_535, metavar="N", help="Listen here; 0: any free one.", rich_help_panel=_LIMITS
        ),
    ] = 8765,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="Answer only those who know the token in this file.",
            show_default=False,
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size", min=1, max=256, metavar="N", help="Most images embedded together.", rich_help_panel=_LIMITS
        ),
    ] = 32,
    wait: Annotated[
        float,
        typer.Option(
            "--max-wait",
            min=0,
            max=1000,
            metavar="MS",
            help="Longest time that an image waits for others to be embedded with.",
            rich_help_panel=_LIMITS,
        ),
    ] = 10.0,
    queue: Annotated[
        int,
        typer.Option(
            "--queue",
            min=1,
            max=10_000,
            metavar="N",
            help="Most images accepted and not yet answered; more get 503.",
            rich_help_panel=_LIMITS,
        ),
    ] = 256,
    max_megabytes: Annotated[
        int,
        typer.Option(
            "--max-megabytes", min=1, max=256, metavar="N", help="Largest image in bytes.", rich_help_panel=_LIMITS
        ),
    ] = 32,
    max_megapixels: Annotated[
        int,
        typer.Option(
            "--max-megapixels", min=1, max=89, metavar="N", help="Largest image in pixels.", rich_help_panel=_LIMITS
        ),
    ] = 50,
    threads: Threads = None,
    *,
    given: Mapping[str, Any],
) -> None:
    """Answer images over HTTP, and show a camera, a video or a folder on a map in the browser.

    It runs until Ctrl-C; what was accepted by then is answered, as far as 30 seconds suffice. A second Ctrl-C ends
    it at once. The page asks no other server for anything.
    """
    from geodtr.cli.deploy.image_options import camera_model_of
    from geodtr.export.options import from_given
    from geodtr.runtime.engines.base import EngineOptions
    from geodtr.runtime.images.intake import Intake
    from geodtr.runtime.installation import naming_extras
    from geodtr.runtime.serve.options import ServeOptions, read_token

    options = ServeOptions(
        host=host,
        port=port,
        token=None if token_file is None else read_token(token_file),
        batch_size=batch_size,
        wait_ms=wait,
        queue=queue,
        max_megabytes=max_megabytes,
        max_megapixels=max_megapixels,
    )
    images: ImageOptions = from_given(ImageOptions, given)
    intake = Intake(images.fov, images.shape, camera_model_of(images.undistort), "warn")
    with naming_extras():
        from geodtr.runtime.serve.server import Request, Server
    prior = None if near is None else parse_near(near)
    sourced = _sourced(camera, video, watch, odometry, every, prior)
    request = Request(bundle, place, options, sourced, EngineOptions(threads=threads), headings, intake)
    server = Server(request, warn)
    messages.print(f"Serving on {server.address} (Ctrl-C ends it)")
    server.run()
    if server.unanswered:
        messages.print(f"Ended; images not answered in time, and refused with 503: {server.unanswered}.")
    else:
        messages.print("Ended; all that was accepted is answered.")


def _sourced(
    camera: str | None, video: Path | None, watch: Path | None, odometry: Path | None, every: int, near: "Near | None"
) -> "Sourced | None":
    """The one source of the live view that the options name. Raises ConfigError."""
    from geodtr.cli.deploy.localize.drive import drive_of
    from geodtr.runtime.errors import ConfigError
    from geodtr.runtime.images.camera import camera_of
    from geodtr.runtime.images.frames import open_frames
    from geodtr.runtime.images.video import VIDEO_SUFFIXES
    from geodtr.runtime.serve.source import Sourced, paced, watched

    named = {"--camera": camera, "--video": video, "--watch": watch}
    given = [flag for flag, value in named.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: the live view has one source. Start a server for each.")
    if not given:
        if odometry is not None or near is not None or every > 1:
            raise ConfigError("--track, --near and --every are for the live view: give --camera, --video or --watch.")
        return None
    if watch is not None:
        if odometry is not None:
            raise ConfigError("--track goes with --video or --camera: images of a folder have no times.")
        if not watch.is_dir():
            raise ConfigError(f"{watch} is not a folder. Name one of images to --watch.")
        return Sourced(watch.resolve().name, partial(watched, watch), near=near, again=True, skip=True)
    known = None if camera is None else camera_of(camera)
    if camera is not None and known is None:
        raise ConfigError(
            f"{camera!r} is no camera; allowed are camera:INDEX, rtsp://, rtsps:// or udp://, gst:PIPELINE."
        )
    if video is not None and (video.suffix.lower() not in VIDEO_SUFFIXES or not video.is_file()):
        raise ConfigError(f"{video} is no video file; one ends in {', '.join(sorted(VIDEO_SUFFIXES))}.")
    place = camera if camera is not None else str(video)
    opened = open_frames([place], every=every)  # OpenCV is missed now, not when somebody looks

    def frames(stopped: Event) -> "Iterable[Frame]":
        each = open_frames([place], every=every).frames
        return each if known is not None else paced(each, stopped)

    name = Path(place).name if known is None else known.name
    if odometry is None:
        return Sourced(name, frames, near=near, again=known is not None)

    def moments(each: "Iterable[Frame]") -> "Iterator[Moment]":
        drive = drive_of(odometry, replace(opened, frames=iter(each)), None, None, None)
        assert drive is not None
        return drive.moments

    return Sourced(name, frames, moments, near, again=known is not None)


def add_to(app: typer.Typer) -> None:
    app.command()(serve)
