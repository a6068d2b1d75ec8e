"""Time exact search by correlation over the heading (DSM): python benchmarks/correlation.py

One query of 360, 180, 90 and 70 degrees among 92,802 maps of 64 columns with 64 values, as many as CVACT_test has
tiles. Needs 3 GB of memory. Prints the fastest of --calls calls, the processor time, and the load: on a busy machine
the wall time is no measure.
"""

import argparse
import os
import time

import numpy as np

from geodtr.runtime.search.exact import search_correlated
from geodtr.runtime.search.matmul import library
from geodtr.runtime.spec import Correlation

TILES, BLOCK = 92_802, 4096
SEEN = {360: 64, 180: 32, 90: 16, 70: 13}
TOP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=TILES)
    parser.add_argument("--calls", type=int, default=5)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    references = np.empty((options.tiles, 64 * 64), np.float32)
    for start in range(0, len(references), BLOCK):
        part = references[start : start + BLOCK]
        part[:] = random.standard_normal(part.shape, dtype=np.float32) / 64
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, {library('float32')}, load {os.getloadavg()[0]:.1f}; {len(references):,} tiles")
    for degrees, seen in SEEN.items():
        scorer = Correlation(columns=64, seen=seen, values=64, field_of_view=degrees)
        query = np.roll(references[777].reshape(64, 64), -5, axis=0)[:seen].reshape(1, -1)
        wall, used = np.inf, np.inf
        for _ in range(options.calls):
            begin, begin_used = time.perf_counter(), time.process_time()
            hits = search_correlated(query / np.linalg.norm(query), references, TOP, scorer)
            wall, used = min(wall, time.perf_counter() - begin), min(used, time.process_time() - begin_used)
        assert hits.rows[0, 0] == 777
        print(f"{degrees:3} degrees: {wall:.2f} s, processor time {used:.2f} s")


if __name__ == "__main__":
    main()
