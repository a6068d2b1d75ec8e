"""Load the server with many clients, beside `embed` on the same images.

python benchmarks/serve.py WORK [--preset NAME ...]                     untrained models of these presets, made in WORK
python benchmarks/serve.py --bundle BUNDLE --gallery GALLERY IMAGES...  a model of your own

Rounds of four slices: `embed`'s own pipeline in this process, as the command runs it and with an engine whose threads
do not spin, as the server's; clients that send one image a request, and clients that send --together images a request.
Other load affects all alike; ratios are computed within a round. The clients are a process of their own, whose work on
the same cores lowers the server's throughput; the ratio by CPU time leaves it out, and depends less on other load.
Memory is the server's resident set at the end of each slice.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from http_clients import Load
from PIL import Image

from geodtr import Bundle, open_bundle
from geodtr.runtime.embed.pipeline import embed_frames
from geodtr.runtime.engines.base import EngineOptions
from geodtr.runtime.gallery.build import begin_gallery
from geodtr.runtime.gallery.manifest import GalleryManifest, MadeBy
from geodtr.runtime.images.frames import open_frames
from geodtr.runtime.sources.tile import Tile
from geodtr.runtime.spec import Embedder

PRESETS = ("world-demo", "world-large", "geodtr-cvusa")
TILES, IMAGES = 4000, 32
CLIENTS = Path(__file__).with_name("http_clients.py")


@dataclass(frozen=True, slots=True)
class Measured:
    """One slice: images a second, milliseconds of CPU an image by the process and by its clients, milliseconds of each
    request, and resident megabytes.
    """

    rate: float
    cpu: float
    clients: float = 0.0
    latencies: Sequence[float] = ()
    errors: int = 0
    memory: float = 0.0


def make(preset: str, folder: Path) -> None:
    """A bundle with an untrained network, a gallery of random descriptors, and generated panoramas as JPEG."""
    import torch

    from geodtr.export.build.source import export_checkpoint
    from geodtr.training.models.checkpoint import save_checkpoint
    from geodtr.training.models.registry import build_model
    from geodtr.training.presets.load import load_preset
    from geodtr.training.world.dataset import WorldSet, write_world

    config = load_preset(preset)
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    save_checkpoint(folder / "model.safetensors", build_model(config.model, config.ground, config.aerial), "random")
    bundle = export_checkpoint(folder / "model.safetensors", folder / "bundle")
    # CVUSA's panoramas, or what needs no resizing.
    height, width = (224, 1232) if preset.endswith("-cvusa") else (config.ground.height, config.ground.width)
    write_world(folder / "world", WorldSet(pairs=IMAGES, height=height, width=width))
    for image in (folder / "world" / "ground").iterdir():
        Image.open(image).save(image.with_suffix(".jpg"), quality=90)
        image.unlink()
    write_gallery(bundle, folder / "gallery")


def write_gallery(bundle: Bundle, out: Path) -> None:
    """Tiles in a square, 55 m apart."""
    manifest, side = bundle.manifest, int(TILES**0.5) + 1
    size = manifest.ground.spec.descriptor_size
    rows = np.random.default_rng(0).normal(size=(TILES, size)).astype(np.float32)
    made_by = MadeBy(embedding_id=manifest.embedding_id, precision=manifest.precision, backend="random")
    held = GalleryManifest(descriptor_size=size, storage="float32", source="random", made_by=made_by)
    tiles = [Tile(f"{row}", "random", 47 + row // side * 5e-4, 8 + row % side * 7e-4) for row in range(TILES)]
    with begin_gallery(out, held) as writer:
        writer.add(tiles, rows / np.linalg.norm(rows, axis=1, keepdims=True))
        writer.finish()


def embed_slice(embedder: Embedder, paths: Sequence[Path], seconds: float) -> Measured:
    start, cpu, count = time.perf_counter(), time.process_time(), 0

    def endless() -> Iterator[Path]:
        while time.perf_counter() < start + seconds:
            yield from paths

    for batch in embed_frames(embedder, endless()):
        count += len(batch.frames)
    return Measured(count / (time.perf_counter() - start), 1000 * (time.process_time() - cpu) / count)


class Served:
    """A server in a process of its own."""

    def __init__(self, port: int, paths: Sequence[Path], clients: int) -> None:
        self._port, self._paths, self._clients = port, paths, clients

    def slice(self, seconds: float, together: int) -> Measured:
        """`clients` images are under way at a time."""
        clients, before = max(1, self._clients // together), self._figure("process_cpu_seconds_total")
        command = [sys.executable, CLIENTS, self._port, "--clients", clients, "--seconds", seconds]
        line = [*command, "--together", together, *self._paths]
        load = Load(**json.loads(subprocess.run(list(map(str, line)), check=True, capture_output=True).stdout))
        cpu = self._figure("process_cpu_seconds_total") - before
        return Measured(
            load.images / load.seconds,
            1000 * cpu / load.images,
            1000 * load.cpu / load.images,
            load.latencies,
            sum(count for status, count in load.statuses.items() if status != "200"),
            self._figure("process_resident_memory_bytes") / 1e6,
        )

    def _figure(self, name: str) -> float:
        """Out of /metrics."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("GET", "/metrics")
        line = re.search(rf"^{name} (\S+)", connection.getresponse().read().decode(), re.M)
        connection.close()
        assert line is not None
        return float(line[1])


@contextmanager
def serving(bundle: Path, gallery: str, threads: int) -> Iterator[int]:
    """The port of a server."""
    command = (sys.executable, "-m", "geodtr", "serve", "--bundle", bundle, "--gallery", gallery)
    line = [*map(str, command), "--port", "0", "--threads", str(threads)]
    server = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        first = server.stderr.readline()
        address = re.search(r"http://127.0.0.1:(\d+)", first)
        if address is None:
            sys.exit(first + server.stderr.read())
        yield int(address[1])
    finally:
        server.terminate()
        if server.wait(60):
            print(f"The server ended with exit code {server.returncode}.")


def measure(name: str, bundle: Path, gallery: str, images: Sequence[str], options: Any) -> None:
    paths = [frame.image for frame in open_frames(images).frames if isinstance(frame.image, Path)]
    embedders = {
        name: open_bundle(bundle).embedder("ground", EngineOptions(threads=options.threads, spin=spin))
        for name, spin in (("embed", True), ("embed, whose threads do not spin", False))
    }
    embedded = {name: list[Measured]() for name in embedders}
    served = {together: list[Measured]() for together in (1, options.together)}
    length = options.seconds / options.rounds / 2
    with serving(bundle, gallery, options.threads) as port:
        server = Served(port, paths, options.clients)
        for number in range(-1, options.rounds):  # the first one warms up
            seconds = length if number >= 0 else min(5.0, length)
            slices = [embed_slice(embedder, paths, seconds) for embedder in embedders.values()]
            slices += [server.slice(seconds, together) for together in served]
            if number >= 0:
                for of, own in zip((*embedded.values(), *served.values()), slices, strict=True):
                    of.append(own)
    print(name)
    for what, each in embedded.items():
        print(f"  {what}: {middle(each, 'rate'):.1f} images/s, {middle(each, 'cpu'):.2f} ms of CPU an image")
    for together, each in served.items():
        report(together, each, embedded)


def report(together: int, own: Sequence[Measured], embedded: Mapping[str, Sequence[Measured]]) -> None:
    p50, p99 = np.percentile([latency for one in own for latency in one.latencies], (50, 99))
    requests = sum(len(one.latencies) for one in own)
    memory = [one.memory for one in own]
    print(
        f"  {together} a request: {middle(own, 'rate'):.1f} images/s, {middle(own, 'cpu'):.2f} ms of CPU an image, its "
        f"clients {middle(own, 'clients'):.2f} ms; {requests} requests, {sum(one.errors for one in own)} errors, p50 "
        f"{p50:.0f} ms, p99 {p99:.0f} ms; memory {memory[0]:.0f} MB at first, {max(memory):.0f} MB at most, "
        f"{memory[-1]:.0f} MB at last"
    )
    for what, others in embedded.items():
        ratios = [one.rate / other.rate for one, other in zip(own, others, strict=True)]
        alone = [other.cpu / one.cpu for one, other in zip(own, others, strict=True)]
        print(f"    of {what}: {spread(ratios)} of the throughput; by CPU time {spread(alone)}", flush=True)


def spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def middle(measured: Sequence[Measured], name: str) -> float:
    return float(median(getattr(one, name) for one in measured))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", metavar="WORK | IMAGES...")
    parser.add_argument("--preset", action="append", help="By default, " + ", ".join(PRESETS))
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--gallery")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--together", type=int, default=16, help="Images of a request in the third slice.")
    parser.add_argument("--seconds", type=float, default=600.0, help="Of serving, in all, for each model.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="Of either engine.")
    options = parser.parse_args()
    if options.bundle is not None:
        measure(str(options.bundle), options.bundle, options.gallery, options.places, options)
    else:
        for preset in options.preset or PRESETS:
            folder = Path(options.places[0]) / preset
            if not folder.exists():
                make(preset, folder)
            images = [str(folder / "world" / "ground")]
            measure(preset, folder / "bundle", str(folder / "gallery"), images, options)
    print(f"{options.clients} images under way; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
