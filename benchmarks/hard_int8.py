"""A network that loses accuracy in INT8, and the remedies:

    python benchmarks/hard_int8.py RUN TRAIN_SPEC SEARCH_SPEC SPEC WORK [SPREAD]

INT8 loses most with channels of very different ranges, because a tensor has one step size for all of them. In training,
batch normalisation can scale channels down. This benchmark adds such channels to RUN's network, which tolerates INT8:
within each residual block, every channel between the two convolutions is multiplied by a factor drawn from exp(SPREAD
N(0, 1)), and the second convolution's weights are divided by it. Float32 descriptors do not change.
Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1.

Prints the loss on the pairs of SPEC: of all operators in INT8, by dialect and range method, with and without bias
correction; of build-engine by default, with `--keep-cosine 0.999`, and with `--precision auto` searched on SEARCH_SPEC;
and of all operators in INT8 after fine-tuning.
"""

import sys
from pathlib import Path

import torch
from all_int8 import Exact, open_exact
from bias_correction import as_rounded
from finetune import tuned

from geodtr import Auto, BuildRequest, Calibration, Quantized, build_engine
from geodtr.calibration.ranges import RangeOptions
from geodtr.cli.console import track
from geodtr.export.build.precisions import Plan
from geodtr.export.build.source import export_checkpoint
from geodtr.runtime.names import BRANCHES, METHODS
from geodtr.training.models.checkpoint import load_checkpoint, save_checkpoint
from geodtr.training.models.geodtr.geodtr import Residual
from geodtr.training.run_files import resolve_checkpoint

SPREAD = 1.0


def main(run: str, train_spec: str, search_spec: str, spec: str, work: str, spread: float) -> None:
    folder = Path(work)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, onnx = folder / "unbalanced.safetensors", folder / "onnx"
    unbalance(Path(run), checkpoint, spread)
    if not onnx.exists():
        export_checkpoint(checkpoint, onnx, track=track)
    exact = open_exact(onnx, train_spec, spec)
    print(f"float32: {exact.hits} of {len(exact.pairs)} at rank 1")
    for dialect in ("cpu-7bit", "cpu-8bit", "tensorrt"):
        print(f"all INT8, {dialect}: {exact.quantised(dialect)}")
    for method in METHODS:
        other = open_exact(onnx, train_spec, spec, RangeOptions(method=method))
        print(f"all INT8, {method}, as rounded: {other.quantised('cpu-8bit', as_rounded)}")
        print(f"all INT8, {method}, corrected: {other.quantised('cpu-8bit')}")
    calibration = Calibration(train_spec)
    plans: dict[str, Plan] = {
        "int8 by default": Quantized(calibration),
        "int8, --keep-cosine 0.999": Quantized(calibration, keep_cosine=0.999),
        "auto": Auto(calibration, search_spec, accept_undecided=True),
    }
    for name, plan in plans.items():
        print(f"{name}: {built(onnx, folder / name.replace(' ', '-'), plan, exact)}")
    after = tuned(Path(run), checkpoint, train_spec, folder / "tuned")
    export_checkpoint(after, folder / "tuned-onnx", track=track)
    better = open_exact(folder / "tuned-onnx", train_spec, spec)
    print(f"fine-tuned: float32 {better.hits}; all INT8 {better.quantised('cpu-8bit')}")


def unbalance(run: Path, out: Path, spread: float) -> None:
    model = load_checkpoint(resolve_checkpoint(run)).model
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in (module for module in model.modules() if isinstance(module, Residual)):
            factors = torch.exp(spread * torch.randn(block.bn1.num_features, generator=generator))
            block.bn1.weight.mul_(factors)
            block.bn1.bias.mul_(factors)
            block.conv2.weight.div_(factors[None, :, None, None])
    save_checkpoint(out, model, f"{run}, its channels unbalanced")


def built(onnx: Path, out: Path, plan: Plan, exact: Exact) -> str:
    """Build an engine; describe its loss and its share of INT8 operators."""
    bundle = build_engine(BuildRequest(onnx, out, plan=plan), track=track)
    record = bundle.manifest.quantisation
    assert record is not None
    embedders = bundle.embedders()
    rows = {branch: embedders[branch].embed(exact.images[branch]) for branch in BRANCHES}
    return f"{record.operators - len(record.kept_float)} of {record.operators} operators; {exact.compared(rows)}"


if __name__ == "__main__":
    run, train_spec, search_spec, spec, work, *more = sys.argv[1:]
    main(run, train_spec, search_spec, spec, work, float(more[0]) if more else SPREAD)
