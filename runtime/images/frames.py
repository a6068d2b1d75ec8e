"""Where images to embed come from: files, folders, lists of files, videos, cameras, and pixels in memory.

Knows names and what is behind them; knows nothing of engines.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np

from geodtr.runtime.arguments import check_argument, check_several, shown
from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.files.text_rows import read_lines
from geodtr.runtime.geodesy import Near
from geodtr.runtime.images.camera import camera_of, check_camera, check_place, read_camera
from geodtr.runtime.images.decode import Decoded, decode, list_images
from geodtr.runtime.images.preprocess import as_input
from geodtr.runtime.images.recorded import Recorded
from geodtr.runtime.images.video import VIDEO_SUFFIXES, check_opencv, read_video
from geodtr.runtime.prefetch import Bulk
from geodtr.runtime.spec import Images, Preprocessing


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image before it is preprocessed.

    `name` identifies it: its path, or `drive.mp4#57` for frame 57 (counted from 0) of a video; empty for a single
    image. `image` is a file, pixels (uint8 RGB [h, w, 3]), what was decoded from bytes, an ImageError where a source
    breaks off, or None once its pixels were used and dropped. `time` is in seconds: since the start of the video, for a
    camera since 1970-01-01T00:00Z; None for files and plain pixels. `altitude` is the camera's in metres above the
    ground, where it is known. `recorded` is what its tags or a flight record state of it; `near` a prior of its own.
    """

    name: str
    image: Path | Images | Decoded | ImageError | None
    time: float | None = None
    altitude: float | None = None
    recorded: Recorded | None = None
    near: Near | None = None

    @property
    def called(self) -> str:
        """What a message calls it."""
        return self.name or "The image"


def _size(frame: Frame) -> int:
    if isinstance(frame.image, Decoded):
        return 4 * frame.image.image.width * frame.image.image.height
    return frame.image.nbytes if isinstance(frame.image, np.ndarray) else 0


def without_pixels(frame: Frame) -> Frame:
    """The frame, with no more memory than a name takes."""
    return replace(frame, image=None) if isinstance(frame.image, np.ndarray | Decoded) else frame


PIXELS = Bulk(_size, without_pixels)
"""The memory that frames of videos and cameras hold."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The requested frames, in order, to be read once.

    `count` is None where only reading the source shows it. `kind` is the source of all frames: a single video, a camera
    (each frame is the newest when it is requested), a recording, or images for anything else.
    """

    frames: Iterator[Frame]
    count: int | None
    kind: Literal["images", "video", "camera", "recording"]
    endless: bool


def open_frames(places: Sequence[str], *, every: int = 1, limit: int | None = None) -> Frames:
    """The images of all `places`, in order; a folder yields its images by name, a list's paths are relative to it.

    `every`: take each n-th frame of a video or a camera, from the first on. `limit`: the maximum number of images in
    all. Only folders and lists are read now: an image, video or camera that cannot be read yields an ImageError later.
    Raises ImageError when a folder holds no images, DataError when a list cannot be read, ConfigError when a camera is
    not the only source or a place is an address of another kind, MissingDependency when there are videos or cameras and
    OpenCV is not installed.
    """
    check_several("places", places, "images, folders, lists, videos, or one camera")
    check_argument("every", every, int, 1)
    check_argument("limit", limit, int | None, 1)
    for place in places:
        check_place(place)
    plain = list(chain.from_iterable(map(_listed, places)))
    cameras = [camera for place in plain if (camera := camera_of(place)) is not None]
    if cameras and len(plain) > 1:
        raise ConfigError(f"{cameras[0].name} is not the only source. A camera has no end: name it alone.")
    videos = [place for place in plain if camera_of(place) is None and _is_video(place)]
    if cameras:
        check_camera(cameras[0])
    elif videos:
        check_opencv()
    count = None if cameras or videos else min(len(plain), len(plain) if limit is None else limit)
    frames = islice(_read(plain, every), limit)
    if cameras:
        return Frames(frames, count, "camera", endless=limit is None)
    return Frames(frames, count, "video" if videos == plain and len(plain) == 1 else "images", endless=False)


def as_frames(images: Path | str | Iterable[Path | str | Images | Frame]) -> Iterator[Frame]:
    """Paths and pixels as frames, in order, taken one by one; pixels are named by their place, `#0` for the first. One
    path is all that `open_frames` finds there. Raises ConfigError for what is no image.
    """
    if isinstance(images, str | os.PathLike):
        yield from open_frames([os.fspath(images)]).frames
        return
    check_several("images", images, "files, pixels or frames")
    for number, image in enumerate(images):
        yield as_frame(image, f"#{number}")


def as_frame(image: Path | str | Images | Frame, name: str) -> Frame:
    """One of them as a frame; `name` is for pixels. Raises ConfigError for what is no image."""
    if isinstance(image, Frame):
        return image
    if isinstance(image, np.ndarray):
        return Frame(name, image)
    if not isinstance(image, str | os.PathLike):
        raise ConfigError(
            f"image{name and f' {name}'} is {shown(image)}; allowed: a file, pixels (uint8 RGB [height, width, 3]), or "
            "a Frame."
        )
    return Frame(str(image), Path(image))


def load_frame(frame: Frame, how: Preprocessing) -> Images:
    """Decode and preprocess one frame to uint8 RGB [how.height, how.width, 3]. Raises ImageError, naming it."""
    return preprocess_frame(frame, decode_frame(frame), how)


def decode_frame(frame: Frame) -> Decoded:
    """One frame in memory, decoded where they are a file's. Raises ImageError, naming it."""
    if isinstance(frame.image, ImageError):
        raise frame.image
    if isinstance(frame.image, Path):
        return decode(frame.image)
    if isinstance(frame.image, Decoded):
        return frame.image
    pixels = frame.image
    if pixels is None:
        raise ImageError(f"{frame.called} holds no pixels any more: they were dropped after use.")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        form = f"{pixels.dtype} {list(pixels.shape)}"
        raise ImageError(f"{frame.called} is an array of {form}; needed is uint8 RGB [height, width, 3].")
    return Decoded.of(pixels)


def preprocess_frame(frame: Frame, decoded: Decoded, how: Preprocessing) -> Images:
    """uint8 RGB [how.height, how.width, 3] of a decoded frame. Raises ImageError, naming it."""
    try:
        return as_input(decoded, how)
    except ImageError as error:
        raise ImageError(f"{frame.called}: {error}") from None


def _listed(place: str) -> list[str]:
    """The images and videos of a folder or a list."""
    if not place.startswith("@"):
        return _contents(place)
    path = Path(place[1:])
    try:
        named = [line for line in read_lines(path) if line]
    except DataError as error:
        raise DataError(f"{error} Name a list of files behind the @.") from None
    if not named:
        raise DataError(f"{path} lists nothing; a line of it is an image, a folder or a video.")
    cameras = [camera_of(line) for line in named]
    for camera in cameras:  # a pipeline of somebody else's list may write files, an address may be anybody's
        if camera is not None and isinstance(camera.source, str):
            raise DataError(f"{path} lists {camera.name}. Name an address or a pipeline on the command line itself.")
    each = zip(named, cameras, strict=True)
    try:
        return [one for line, camera in each for one in _contents(line if camera else str(path.parent / line))]
    except ImageError as error:
        raise ImageError(f"{path} lists a folder: {error}") from None


def _contents(place: str) -> list[str]:
    # Where access is denied, an image yields its own error later.
    is_folder = camera_of(place) is None and os.path.isdir(place)  # noqa: PTH112 (Path.is_dir raises there)
    return [str(path) for path in list_images(Path(place))] if is_folder else [place]


def _read(places: Sequence[str], every: int) -> Iterator[Frame]:
    for place in places:
        camera = camera_of(place)
        if camera is not None:
            yield from (Frame(*seen) for seen in read_camera(camera, every))
        elif _is_video(place):
            yield from (Frame(*seen) for seen in read_video(Path(place), every))
        else:
            yield Frame(place, Path(place))


def _is_video(place: str) -> bool:
    return Path(place).suffix.lower() in VIDEO_SUFFIXES
