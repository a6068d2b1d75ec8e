"""A video whose frames differ in colour."""

from pathlib import Path

import cv2
import numpy as np

FRAMES, RATE = 30, 10.0


def write_video(path: Path, fourcc: str = "MJPG") -> Path:
    """Frames of one colour each: increasing red, no green, full blue."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), RATE, (64, 48))
    for number in range(FRAMES):
        writer.write(np.full((48, 64, 3), (255, 0, 8 * number), np.uint8))
    writer.release()
    return path
