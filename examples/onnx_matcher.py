"""Match nadir frames with the map by a learned matcher in an ONNX file: the second stage's own matcher is replaced.

    pip install '.[cpu,video]'
    python examples/onnx_matcher.py MATCHER.onnx BUNDLE GALLERY FRAME --altitude 80 --fov 70

MATCHER takes two grey images, float32 [1, 1, H, W] from 0 to 1, whose sides are multiples of 8, and gives the pixels of
both that show the same, [M, 2] each, column and row, as exports of LoFTR do. For another form, change `match`.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from geodtr import Localizer
from geodtr.runtime.localization.nadir.hypotheses import NadirOptions
from geodtr.runtime.localization.nadir.matching import Matches
from geodtr.runtime.localization.nadir.refine import RefineOptions
from geodtr.runtime.spec import Images


class OnnxMatcher:
    """A Matcher (geodtr.runtime.localization.nadir.matching)."""

    def __init__(self, file: Path) -> None:
        self._session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def match(self, frame: Images, inside: NDArray[np.bool_], ground: Images, reach: int) -> Matches:
        del reach  # the model looks everywhere
        names = [each.name for each in self._session.get_inputs()]
        given = dict(zip(names, (_grey(frame), _grey(ground)), strict=True))
        ours, theirs = (np.asarray(points, np.float64) for points in self._session.run(None, given)[:2])
        shown = inside[ours[:, 1].astype(int), ours[:, 0].astype(int)]
        return Matches(ours[shown] + 0.5, theirs[shown] + 0.5)  # a pixel's middle is at a half


def _grey(image: Images) -> NDArray[np.float32]:
    """Cut at the right and below, where no pixel changes its place."""
    height, width = (side // 8 * 8 for side in image.shape[:2])
    grey = Image.fromarray(image[:height, :width]).convert("L")
    return np.asarray(np.asarray(grey)[None, None] / np.float32(255), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("matcher", "bundle", "gallery", "frame"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--altitude", type=float, required=True, help="Metres above the ground.")
    parser.add_argument("--fov", type=float, required=True, help="Degrees, of the frame's width.")
    given = parser.parse_args()
    nadir = NadirOptions(altitude=given.altitude, fov=given.fov)
    refine = RefineOptions(matcher=OnnxMatcher(given.matcher))
    with Localizer.open(given.bundle, given.gallery, nadir=nadir, refine=refine) as localizer:
        answer = localizer.locate(given.frame).nadir
    assert answer is not None  # nadir options were given
    print(answer.refined or answer.unrefined)


if __name__ == "__main__":
    main()
