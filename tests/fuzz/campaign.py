"""The campaign: thousands of damaged and hostile inputs of every kind, each read or refused in words.

    make fuzz                                  # 10,000 inputs, seed 0
    make fuzz FUZZ="--count 500 --seed 7 --kind GeoTIFF"

Kinds share a process, apart from this one: a library that kills it costs the rest of one kind. The same seed gives
the same inputs. An input that ends in anything but a result or a UserError, takes too much memory or too long is kept
in a file, and the exit code is 1.
"""

import argparse
import faulthandler
import importlib
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from hypothesis import HealthCheck, Phase, given, seed, settings
from kinds import Kind, Maker

KINDS = {
    "manifest.json": "documents.manifest",
    "gallery.json": "documents.gallery_document",
    "tiles.csv": "documents.tiles_csv",
    "tiles.csv with edges": "documents.edges_csv",
    "tiles.csv with corners": "documents.corners_csv",
    "known images (CSV)": "documents.known_images",
    "altitudes (CSV)": "documents.altitudes",
    "odometry": "documents.odometry",
    "odometry, row by row": "documents.odometry_rows",
    "list of images": "documents.image_list",
    "pairs.csv": "documents.pairs_csv",
    "preset (TOML)": "documents.preset",
    "--set": "documents.setting",
    "references.sqlite, bytes": "galleries.table",
    "references.sqlite, values": "galleries.values",
    "descriptor files": "galleries.descriptors",
    "JPEG": "pictures.jpeg",
    "PNG": "pictures.png",
    "WebP": "pictures.webp",
    "TIFF": "pictures.tiff",
    "BMP": "pictures.bmp",
    "EXIF and XMP": "pictures.exif",
    "video: MP4": "pictures.mp4",
    "video: AVI": "pictures.avi",
    "video: Matroska": "pictures.matroska",
    "GeoTIFF": "maps_fed.geotiff",
    "JPEG 2000": "maps_fed.jpeg2000",
    "VRT": "maps_fed.vrt",
    "world file": "maps_fed.world_file",
    ".aux.xml": "maps_fed.side_file",
    ".ovr": "maps_fed.overviews",
    "MBTiles": "maps_fed.mbtiles",
    "PMTiles": "maps_fed.pmtiles",
    "camera and rig files": "flights.rig_file",
    "flight record (.srt)": "flights.subtitles",
    "flight record (Airdata)": "flights.airdata_table",
    "flight record (DJI, converted)": "flights.converted_table",
    "flight record (Litchi)": "flights.litchi_table",
    "MAVLink and .tlog": "mavlink.link",
    "MCAP": "bags_fed.mcap",
    "MCAP, compressed": "bags_fed.mcap_zipped",
    "ROS 2 bag (SQLite)": "bags_fed.sqlite",
    "ROS 2 bag, compressed": "bags_fed.sqlite_zipped",
    "ROS 2 images (CDR)": "bags_fed.messages",
    "checkpoint (.safetensors)": "models.checkpoint",
    "checkpoint (.pth)": "models.official",
    "ONNX engine, hash recomputed": "models.onnx",
    "OpenVINO engine, hash recomputed": "models.openvino",
}
"""By name, the function that makes the kind. It is imported in the process that runs it."""

LONGEST_S = 10.0
"""CPU seconds that one input may take: a thousand times what a valid one takes."""
HANGING_S = 180.0
LARGEST_GB = 1.5
"""Memory beyond what the process had before: an image at the largest size allowed takes half of it."""


_UNWATCHED = settings(database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


@dataclass
class Count:
    """What became of a kind's inputs. `failures`: where in the code, and how often."""

    name: str
    fed: int = 0
    accepted: int = 0
    refused: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def feed(kind: Kind, count: Count, number: int, chance: int, keep: Path) -> Count:
    """Give `number` inputs to a kind. What fails is counted, and the first input of each failure kept in a file."""
    from geodtr.runtime.errors import UserError

    last = keep / f"{_file_name(count.name)}-last.pickle"

    @seed(chance)
    @settings(_UNWATCHED, max_examples=number)
    @given(kind.inputs)
    def each(content: Any) -> None:
        last.write_bytes(pickle.dumps(content))
        count.fed += 1
        _forget_peak()
        before, began = _peak(), time.process_time()
        faulthandler.dump_traceback_later(HANGING_S, exit=True, file=_errors())
        try:
            kind.use(content)
            count.accepted += 1
        except UserError:
            count.refused += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            _failed(count, _where(error), last)
        finally:
            faulthandler.cancel_dump_traceback_later()
        taken, grown = time.process_time() - began, _peak() - before
        if taken > LONGEST_S:
            _failed(count, f"took {taken:.0f} s", last)
        if grown > LARGEST_GB:
            _failed(count, f"took {grown:.1f} GB", last)

    began = time.perf_counter()
    each()
    count.seconds = time.perf_counter() - began
    last.unlink(missing_ok=True)
    return count


def _failed(count: Count, what: str, last: Path) -> None:
    if what not in count.failures:
        shutil.copy(last, last.with_name(f"{_file_name(count.name)}-{len(count.failures)}.pickle"))
    count.failures[what] += 1


def _where(error: BaseException) -> str:
    """The exception, and the innermost line of this package that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and "/tests/fuzz/" not in frame.filename]
    where = (own or frames)[-1]
    return (
        f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno} ({' '.join(str(error).split())[:150]})"
    )


def _peak() -> float:
    """The largest memory of this process since the last `_forget_peak`, in GB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e6


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _errors() -> TextIO:
    """Standard error as it was when this process began: decoders write to the one that there is now."""
    return _SPOKEN[0] if _SPOKEN else sys.stderr


_SPOKEN = list[TextIO]()


def run_kind(name: str, number: int, chance: int, keep: Path) -> Count:
    """Make a kind in a temporary folder, in memory where there is one for files, and feed it."""
    module, _, function = KINDS[name].partition(".")
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make: Maker = getattr(importlib.import_module(module), function)
        kind = make(Path(folder))
        kind.use(kind.valid)
        return feed(kind, Count(name), number, chance, keep)


def _in_child(sender: Any, shares: Mapping[str, int], chance: int, keep: Path) -> None:
    _SPOKEN.append(os.fdopen(os.dup(2), "w"))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what decoders print of damaged files
    try:
        for name, number in shares.items():
            sender.send(run_kind(name, number, chance, keep))
    except BaseException:
        traceback.print_exc(file=_errors())
        raise


def _apart(shares: Mapping[str, int], chance: int, keep: Path) -> Iterator[Count]:
    """Run some kinds in a process of their own; where one of them kills it, the rest goes on in another."""
    context = multiprocessing.get_context("spawn")
    left = dict(shares)
    while left:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_in_child, args=(sender, left, chance, keep))
        child.start()
        sender.close()
        for name in list(left):
            try:
                count: Count = receiver.recv()
            except EOFError:
                count = Count(name)
                child.join()
                code = child.exitcode or 0
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                count.failures[f"the process ended with {how}"] += 1
            del left[name]
            yield count
            if not count.fed:
                break
        child.join()


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="inputs in all, shared evenly by the kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", help="only kinds whose name has this; may be repeated")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for inputs that fail")
    given_ = parser.parse_args(arguments)
    parts = given_.kind or [""]
    names = [name for name in KINDS if any(part.lower() in name.lower() for part in parts)]
    if not names:
        parser.error(f"no kind is called {' or '.join(parts)}; known are {', '.join(KINDS)}")
    given_.keep.mkdir(exist_ok=True)
    print(f"{'kind':36}{'fed':>8}{'accepted':>10}{'refused':>10}{'failed':>8}{'s':>8}")
    shares = {
        name: given_.count // len(names) + (place < given_.count % len(names)) for place, name in enumerate(names)
    }
    total = Count("in all")
    for _, group in groupby(names, key=lambda name: KINDS[name].partition(".")[0]):
        for count in _apart({name: shares[name] for name in group}, given_.seed, given_.keep):
            _print(count)
            for each in ("fed", "accepted", "refused", "failures", "seconds"):
                setattr(total, each, getattr(total, each) + getattr(count, each))
    _print(total)
    if total.failures:
        print(f"The inputs are in {given_.keep}, one of each failure.")
        return 1
    given_.keep.rmdir()
    return 0


def _print(count: Count) -> None:
    failed = sum(count.failures.values())
    figures = f"{count.fed:8,}{count.accepted:10,}{count.refused:10,}{failed:8,}{count.seconds:8.0f}"
    print(f"{count.name:36}{figures}", flush=True)
    if count.name != "in all":
        for what, times in count.failures.most_common():
            print(f"    {times} x {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
