"""geodtr-export on a machine with a camera: python fake_camera.py VIDEO HANGS_AFTER ARGUMENTS...

The video replaces every camera and is played in a loop at its frame rate. After HANGS_AFTER frames it gives no frame
and reports no error, like a camera with a loose cable. Timeouts are one second here.
"""

import sys
import time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geodtr.cli.main import main
from geodtr.runtime.images import camera
from geodtr.runtime.tracking import synchronize

VIDEO, HANGS_AFTER = sys.argv[1], int(sys.argv[2])
_Capture = cv2.VideoCapture


class Camera:
    """The methods of cv2.VideoCapture that are in use."""

    def __init__(self, index: int) -> None:
        del index
        self._capture = _Capture(VIDEO)
        self._seconds = 1 / self._capture.get(cv2.CAP_PROP_FPS)
        self._given = 0

    def isOpened(self) -> bool:
        return True

    def grab(self) -> bool:
        time.sleep(self._seconds if self._given < HANGS_AFTER else 3600)
        self._given += 1
        if not self._capture.grab():
            self._capture = _Capture(VIDEO)
            self._capture.grab()
        return True

    def retrieve(self) -> tuple[bool, NDArray[np.uint8]]:
        there, pixels = self._capture.retrieve()
        return there, np.asarray(pixels, np.uint8)

    def release(self) -> None:
        self._capture.release()


if __name__ == "__main__":
    replaced: Any = cv2
    replaced.VideoCapture = Camera
    camera.PATIENCE = synchronize.PATIENCE = 1.0
    sys.argv = ["geodtr-export", *sys.argv[3:]]
    main()
