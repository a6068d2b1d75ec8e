"""What correcting biases is worth: python benchmarks/bias_correction.py BUNDLE CALIBRATION_SPEC SPEC

BUNDLE is an exported float32 one. All operators INT8, in each dialect, with and without: mean and smallest cosine with
float32 of both branches, and hits at rank 1 on the pairs of SPEC.
"""

import sys
from pathlib import Path

import numpy as np
import onnx

from geodtr.calibration.ranges import RangeOptions, calibrate
from geodtr.export.calibration_pool import read_pool
from geodtr.export.int8 import Int8Quantiser, with_quantised
from geodtr.export.kept_cosine import describe
from geodtr.runtime.bundle import open_bundle
from geodtr.runtime.names import BRANCHES, DIALECTS
from geodtr.runtime.pipeline import load_batches
from geodtr.runtime.recall import rank
from geodtr.training.data.spec import read_test_set


def main(bundle: str, calibration: str, spec: str) -> None:
    exported, pairs = open_bundle(Path(bundle)), read_test_set(spec)
    ranges = calibrate(exported, read_pool(calibration)[0], RangeOptions()).ranges
    graphs, images, exact = {}, {}, {}
    for branch in BRANCHES:
        engine = exported.manifest.engine(branch)
        paths = pairs.paths("ground") if branch == "ground" else pairs.references
        graphs[branch] = onnx.load(str(exported.path / engine.file))
        images[branch] = np.concatenate(list(load_batches(paths, engine.spec.preprocessing)))
        exact[branch] = describe(graphs[branch], images[branch])
    hits = np.count_nonzero(rank(exact["ground"], exact["aerial"], pairs.truth).rank == 0)
    print(f"float32: {hits} of {len(pairs)} at rank 1")
    for dialect in DIALECTS:
        for corrected in (False, True):
            rows, cosines = {}, []
            for branch in BRANCHES:
                activations = ranges[branch].activations
                quantiser = Int8Quantiser(graphs[branch], activations, dialect)
                chosen = [operator.name for operator in quantiser.operators]
                graph = (
                    quantiser.quantise(chosen)
                    if corrected
                    else with_quantised(graphs[branch], activations, dialect, chosen)
                )
                rows[branch] = describe(graph, images[branch])
                cosines.append(np.sum(rows[branch] * exact[branch], axis=1))
            both = np.concatenate(cosines)
            hits = np.count_nonzero(rank(rows["ground"], rows["aerial"], pairs.truth).rank == 0)
            word = "corrected" if corrected else "as rounded"
            print(f"{dialect:9} {word:10}: {hits} hits, 1 - cosine {1 - both.mean():.1e}, at most {1 - both.min():.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
