"""Check the reference model on the GPU: descriptors and recall match the CPU, and exporting leaves it on the GPU."""

import numpy as np

from geodtr.export.build.source import export_checkpoint
from geodtr.export.cosines import cosines
from geodtr.export.graph.export import export_network
from geodtr.export.model import open_model
from geodtr.export.parity import compare
from geodtr.export.timing import time_embedders
from geodtr.runtime.embed.pipeline import embed_files
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.spec import noise
from geodtr.training.evaluation.evaluate import evaluate
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.embedder import embedders, from_pixels
from gpu.report import Report
from gpu.setting import Setting

_MIN_COSINE = 0.99999
"""Acceptance threshold of parity for float32."""
_IMAGES = 16


def run(report: Report, setting: Setting) -> None:
    checkpoint = setting.full_checkpoint()
    here, on_cpu = open_model(checkpoint).embedders, embedders(load_checkpoint(checkpoint).model)
    pair_set = setting.world(setting.size.preset, setting.size.pairs)
    for branch in BRANCHES:
        paths = pair_set.paths(branch)[:_IMAGES]
        rows = [embed_files(pair[branch], paths, batch_size=8) for pair in (here, on_cpu)]
        smallest = float(np.min(cosines(*rows)))
        report.fact(f"smallest cosine with the CPU's {branch} descriptors", smallest)
        report.require(smallest >= _MIN_COSINE, f"{branch} descriptors differ from the CPU's: {smallest:.7f}")
        for batch in setting.size.batches:
            images = noise(here[branch].spec, batch)
            (timing,) = time_embedders([here[branch]], [images], rounds=setting.size.rounds)
            report.row("PyTorch, float32", branch=branch, batch=batch, **{"images/s": timing.speed.median})

    run_folder, (_, unseen) = setting.small_run(), setting.small_sets()
    small, small_on_cpu = open_model(run_folder), embedders(load_checkpoint(run_folder).model)
    on_gpu, expected = evaluate(small.embedders, unseen).at_1, evaluate(small_on_cpu, unseen).at_1
    report.fact("R@1 of the small model trained here", on_gpu)
    report.fact("R@1 as the CPU computes it", expected)
    report.require(
        abs(on_gpu - expected) <= 1 / len(unseen), f"R@1 is {on_gpu:.4f} on the GPU and {expected:.4f} on the CPU"
    )

    model = load_checkpoint(run_folder).model.to(setting.device)
    export_network(from_pixels(model, "ground"), model.specs["ground"].preprocessing)
    same_device = next(model.parameters()).device.type == setting.device.type
    report.require(same_device, "exporting moved the network off the GPU")
    bundle = export_checkpoint(run_folder, setting.work / "exported")
    figures = compare(small, [open_model(bundle.path)], unseen, stages=False).figures
    report.fact("parity of the exported graphs with it", figures.verdict)
    report.fact("smallest cosine of the exported graphs with it", figures.candidates[0].smallest_cosine)
    report.require(figures.verdict == "passed", " ".join(figures.candidates[0].gate.reasons))
