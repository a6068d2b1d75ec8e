"""Measure quantisation-aware fine-tuning: python benchmarks/finetune.py RUN TRAIN_SPEC SPEC WORK

RUN is the folder of a training run. Trains it for three more epochs as `geodtr-export finetune` does: once with
simulated INT8 and, as a control for the longer training, once in float32 at the same learning rate. Prints for the
three models the hits at rank 1 on SPEC's pairs in float32 and with all operators in INT8, and the lost cosine.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from all_int8 import open_exact

from geodtr.calibration.ranges import RangeOptions
from geodtr.cli.console import track
from geodtr.export.build.source import export_checkpoint
from geodtr.export.finetune import finetune_config
from geodtr.runtime.names import DIALECTS
from geodtr.training.data.spec import absolute, read_training_set
from geodtr.training.loop import train
from geodtr.training.run_files import CONFIG, resolve_checkpoint


def main(run: str, train_spec: str, spec: str, work: str) -> None:
    folder, checkpoint = Path(work), resolve_checkpoint(Path(run))
    models = {"as trained": checkpoint}
    for name, settings in (("three more epochs", ["int8.convolutions={}"]), ("fine-tuned", [])):
        models[name] = tuned(Path(run), checkpoint, train_spec, folder / name.replace(" ", "-"), settings)
    for name, model in models.items():
        bundle = folder / f"{name.replace(' ', '-')}-onnx"
        if not bundle.exists():
            export_checkpoint(model, bundle, track=track)
        exact = open_exact(bundle, train_spec, spec)
        print(f"{name}: float32 {exact.hits} of {len(exact.pairs)} at rank 1")
        for dialect in DIALECTS:
            print(f"  {dialect:9} {exact.quantised(dialect)}")


def tuned(run: Path, checkpoint: Path, train_spec: str, out: Path, settings: Sequence[str] = ()) -> Path:
    """Fine-tune `checkpoint` with the hyperparameters of `run` into `out`, unless `out` exists."""
    if not out.exists():
        config = finetune_config(
            checkpoint,
            read_training_set(train_spec),
            RangeOptions(),
            "cpu-8bit",
            preset=str(run / CONFIG),
            settings=settings,
            changes={"data.train": absolute(train_spec), "data.validation": "", "data.limit": 0},
            track=track,
        )
        train(config, read_training_set(train_spec), out, track=track)
    return resolve_checkpoint(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
