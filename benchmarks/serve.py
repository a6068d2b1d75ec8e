"""Load the server with many clients: python benchmarks/serve.py BUNDLE GALLERY IMAGES...

Clients send the images one by one, each its next one when the last is answered, for --seconds in all. Slices of this
are interleaved with slices of `embed`'s own pipeline on the same images in this process, so that other load affects
both alike; the ratio of throughputs is computed within a round. The clients' own work is on the server's side of it,
as is the search. Memory is the server's resident set at the end of each slice.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median

import numpy as np

from geodtr import open_bundle
from geodtr.runtime.embed.pipeline import embed_frames
from geodtr.runtime.engines.base import EngineOptions
from geodtr.runtime.images.frames import open_frames
from geodtr.runtime.spec import Embedder


@dataclass
class Load:
    """What the clients saw in one slice."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds


def client(port: int, images: Sequence[bytes], first: int, until: float, load: Load, lock: threading.Lock) -> None:
    """Ask until the slice is over; all that was sent is answered."""
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    number, latencies, statuses = first, list[float](), Counter[str]()
    while time.monotonic() < until:
        start = time.perf_counter()
        try:
            connection.request(
                "POST", "/v1/locate", images[number % len(images)], {"Content-Type": "application/octet-stream"}
            )
            answer = connection.getresponse()
            document = json.loads(answer.read())
            statuses[str(answer.status) if "candidates" in document or answer.status != 200 else "empty"] += 1
            if answer.status == 503:
                time.sleep(float(answer.headers["Retry-After"]))
            elif answer.status == 200:
                latencies.append(time.perf_counter() - start)
        except (OSError, HTTPException) as error:
            statuses[type(error).__name__] += 1
            connection.close()
        number += 1
    connection.close()
    with lock:
        load.latencies += latencies
        load.statuses += statuses


def serve_slice(port: int, images: Sequence[bytes], clients: int, seconds: float) -> Load:
    load, lock, start = Load(), threading.Lock(), time.monotonic()
    threads = [
        threading.Thread(target=client, args=(port, images, number, start + seconds, load, lock))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.monotonic() - start
    return load


def embed_slice(embedder: Embedder, paths: Sequence[Path], seconds: float) -> float:
    """Images a second."""
    start, count = time.monotonic(), 0

    def endless() -> Iterator[Path]:
        while time.monotonic() < start + seconds:
            yield from paths

    for batch in embed_frames(embedder, endless()):
        count += len(batch.frames)
        if time.monotonic() > start + seconds:
            break
    return count / (time.monotonic() - start)


def measured(port: int, name: str) -> float:
    """A figure of the server's own, out of /metrics."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    line = re.search(rf"^{name} (\S+)", text, re.M)
    assert line is not None
    return float(line[1])


def resident(port: int) -> float:
    """Megabytes."""
    return measured(port, "process_resident_memory_bytes") / 1e6


def cpu_of(port: int) -> float:
    """Seconds of CPU that the server took so far."""
    return measured(port, "process_cpu_seconds_total")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("gallery")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=600.0, help="Of serving, in all.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="Of either engine.")
    options = parser.parse_args()

    paths = [frame.image for frame in open_frames(options.images).frames if isinstance(frame.image, Path)]
    images = [path.read_bytes() for path in paths]
    embedder = open_bundle(options.bundle).embedder("ground", EngineOptions(threads=options.threads))
    command = (sys.executable, "-m", "geodtr", "serve", "--bundle", str(options.bundle), "--gallery", options.gallery)
    server = subprocess.Popen(
        [*command, "--port", "0", "--threads", str(options.threads)], stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    try:
        line = server.stderr.readline()
        address = re.search(r"http://127.0.0.1:(\d+)", line)
        if address is None:
            sys.exit(line + server.stderr.read())
        port, each = int(address[1]), options.seconds / options.rounds
        serve_slice(port, images, options.clients, min(5.0, each))  # warm
        embed_slice(embedder, paths, min(5.0, each))
        loads, ratios, memory = list[Load](), list[float](), [resident(port)]
        costs = list[tuple[float, float, float]]()
        print(f"{'round':>5} {'embed/s':>8} {'serve/s':>8} {'ratio':>6} {'p50 ms':>7} {'p99 ms':>7} {'MB':>6}  answers")
        for number in range(options.rounds):
            start = time.process_time()
            embedded = embed_slice(embedder, paths, each)
            alone = (time.process_time() - start) / (embedded * each)
            start, own = cpu_of(port), time.process_time()
            load = serve_slice(port, images, options.clients, each)
            served = (cpu_of(port) - start) / len(load.latencies)
            clients = (time.process_time() - own) / len(load.latencies)
            costs.append((alone, served, clients))
            loads.append(load)
            ratios.append(load.rate / embedded)
            memory.append(resident(port))
            p50, p99 = (1000 * float(value) for value in np.percentile(load.latencies, (50, 99)))
            print(
                f"{number + 1:5} {embedded:8.1f} {load.rate:8.1f} {ratios[-1]:6.2f} {p50:7.0f} {p99:7.0f} "
                f"{memory[-1]:6.0f}  {dict(load.statuses)}",
                flush=True,
            )
    finally:
        server.terminate()
        code = server.wait(60)
    everything = [latency for load in loads for latency in load.latencies]
    p50, p99 = (1000 * float(value) for value in np.percentile(everything, (50, 99)))
    alone, served, clients = (1000 * median(part) for part in zip(*costs, strict=True))
    print(
        f"CPU of an image: {alone:.1f} ms by embed, {served:.1f} ms by the server with its search, {clients:.1f} ms by "
        "the clients"
    )
    errors = sum(count for load in loads for status, count in load.statuses.items() if status != "200")
    print(
        f"{options.clients} clients, {sum(load.seconds for load in loads):.0f} s: {len(everything)} answers, {errors} "
        f"errors, p50 {p50:.0f} ms, p99 {p99:.0f} ms; {median(ratios):.2f} of embed's throughput (median of "
        f"{len(ratios)} rounds); memory {memory[0]:.0f} MB at first, {max(memory):.0f} MB at most, {memory[-1]:.0f} MB "
        f"at last; exit code {code}; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
