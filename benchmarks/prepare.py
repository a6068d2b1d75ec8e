"""Measure the speed of preparing and reading images: python benchmarks/prepare.py cvusa:ROOT#val

Prints, for each branch, milliseconds per image (best of seven) for decoding, preprocessing, and reading the prepared
image by PNG level; then images/s for preparing the whole set with 1, 2 and 4 threads.
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image

from geodtr.runtime.images.decode import decode
from geodtr.runtime.images.preprocess import preprocess
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import Preprocessing
from geodtr.training.data.prepare import prepare
from geodtr.training.data.spec import find_preset, read_test_set
from geodtr.training.presets.load import load_preset

ROUNDS = 7
LEVELS = (0, 1, 6)
THREADS = (1, 2, 4)


def milliseconds(work: Callable[[], object]) -> float:
    """The shortest of several runs after a warm-up."""
    work()
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return 1000 * min(taken)


def write_png(image: Image.Image, level: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "png", compress_level=level)
    return file.getvalue()


def read_png(content: bytes) -> object:
    return Image.open(io.BytesIO(content)).load()


def main() -> None:
    spec = sys.argv[1]
    pair_set, preset = read_test_set(spec), load_preset(find_preset(spec))
    preprocessing: dict[Branch, Preprocessing] = {"ground": preset.ground, "aerial": preset.aerial}
    for branch in BRANCHES:
        path, how = pair_set.images(branch)[0], preprocessing[branch]
        image = decode(path).image
        decoding, working = milliseconds(partial(decode, path)), milliseconds(partial(preprocess, image, how))
        print(f"{branch}: decoding {decoding:.2f} ms, preprocessing {working:.2f} ms")
        prepared = Image.fromarray(preprocess(image, how))
        for level in LEVELS:
            content = write_png(prepared, level)
            writing = milliseconds(partial(write_png, prepared, level))
            reading = milliseconds(partial(read_png, content))
            print(f"  level {level}: writing {writing:.2f} ms, reading {reading:.2f} ms, {len(content) / 1000:.0f} kB")
    for threads in THREADS:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            done = prepare(Path(folder) / "out", pair_set, preprocessing, jobs=threads)
            print(f"{threads} threads: {done.written / (time.perf_counter() - start):.0f} images/s")


if __name__ == "__main__":
    main()
