"""The command `serve`: the HTTP API and the live view."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

from geodtr.cli.console import messages, warn
from geodtr.cli.dataclass_options import with_options
from geodtr.cli.deploy.image_options import PANEL, ImageOptions, intake_of
from geodtr.cli.deploy.localize.drive import drive_of
from geodtr.cli.options import Every, GivenBundle, GivenGallery, Headings, Threads, flag, parse_near
from geodtr.runtime.errors import ConfigError
from geodtr.runtime.installation import naming_extras

if TYPE_CHECKING:
    from geodtr.runtime.geodesy import Near
    from geodtr.runtime.images.frames import Frame
    from geodtr.runtime.serve.source import Sourced
    from geodtr.runtime.tracking.synchronize import Moment

_live, _limit = (partial(flag, rich_help_panel=panel) for panel in ("Live view", "Network and limits"))


@with_options({PANEL: (ImageOptions,)}, leave_out=("mismatch",))
def serve(
    bundle: GivenBundle,
    place: GivenGallery,
    camera: Annotated[
        str | None,
        _live("--camera CAMERA", "Show a camera: camera:INDEX, an address (rtsp://, udp://), or gst:PIPELINE."),
    ] = None,
    video: Annotated[Path | None, _live("--video FILE", "Play a video at its own pace.")] = None,
    watch: Annotated[Path | None, _live("--watch FOLDER", "Show the images of a folder, and those that come.")] = None,
    odometry: Annotated[
        Path | None,
        _live(
            "--track ODOMETRY.csv",
            "Fuse the frames of a video or a camera with speed and yaw; - reads rows from standard input.",
        ),
    ] = None,
    every: Every = 1,
    near: Annotated[
        str | None,
        _live("--near LAT,LON,RADIUS", "Search frames only in tiles within RADIUS metres.", show_default="all"),
    ] = None,
    headings: Headings = 1,
    host: Annotated[
        str, _limit("--host ADDRESS", "Listen here; beyond this machine only with --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, _limit("--port N", "Listen here; 0: any free one.", min=0, max=65_535)] = 8765,
    token_file: Annotated[
        Path | None, _limit("--token-file FILE", "Answer only those who know the token in this file.")
    ] = None,
    batch_size: Annotated[int, _limit("--batch-size N", "Most images embedded together.", min=1, max=256)] = 32,
    wait: Annotated[
        float,
        _limit("--max-wait MS", "Longest time that an image waits for others to be embedded with.", min=0, max=1000),
    ] = 10.0,
    queue: Annotated[
        int, _limit("--queue N", "Most images accepted and not yet answered; more get 503.", min=1, max=10_000)
    ] = 256,
    max_megabytes: Annotated[int, _limit("--max-megabytes N", "Largest image in bytes.", min=1, max=256)] = 32,
    max_megapixels: Annotated[int, _limit("--max-megapixels N", "Largest image in pixels.", min=1, max=89)] = 50,
    threads: Threads = None,
    *,
    given: Mapping[str, Any],
) -> None:
    """Answer images over HTTP, and show a camera, a video or a folder on a map in the browser.

    It runs until Ctrl-C; what was accepted by then is answered, as far as 30 seconds suffice. A second Ctrl-C ends
    it at once. The page asks no other server for anything.
    """
    from geodtr.runtime.engines.base import EngineOptions
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
    intake = replace(intake_of(given), mismatch="warn")
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
        if not watch.exists():
            raise ConfigError(f"{watch} does not exist. Check the path.")
        if not watch.is_dir():
            raise ConfigError(f"{watch} is not a folder. Name one of images to --watch.")
        return Sourced(watch.resolve().name, partial(watched, watch), near=near, again=True, skip=True)
    known = None if camera is None else camera_of(camera)
    if camera is not None and known is None:
        raise ConfigError(
            f"{camera!r} is no camera; allowed are camera:INDEX, rtsp://, rtsps:// or udp://, gst:PIPELINE."
        )
    if video is not None and not video.exists():
        raise ConfigError(f"{video} does not exist. Check the path.")
    if video is not None and (video.suffix.lower() not in VIDEO_SUFFIXES or not video.is_file()):
        raise ConfigError(f"{video} is no video file; one ends in {', '.join(sorted(VIDEO_SUFFIXES))}.")
    place = camera if camera is not None else str(video)
    opened = open_frames([place], every=every)  # OpenCV is missed now, not when somebody looks

    # Viewers read the name of a file, and not where it is.
    long, name = (place, Path(place).name) if known is None else (known.name, known.name)

    def frames(stopped: Event) -> "Iterable[Frame]":
        each = open_frames([place], every=every).frames
        for frame in each if known is not None else paced(each, stopped):
            yield replace(frame, name=name + frame.name.removeprefix(long))

    if odometry is None:
        return Sourced(name, frames, near=near, again=known is not None)

    def moments(each: "Iterable[Frame]") -> "Iterator[Moment]":
        drive = drive_of(odometry, replace(opened, frames=iter(each)), None, None, None)
        assert drive is not None
        return drive.moments

    return Sourced(name, frames, moments, near, again=known is not None)
