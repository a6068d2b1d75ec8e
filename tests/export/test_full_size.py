"""The network at official sizes, from the release's file to engines on real JPEG images."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import official
import pytest
from conftest import Outcome

from geodtr import BuildRequest, Calibration, build_engine, open_bundle
from geodtr.export.build.precisions import plan_of
from geodtr.export.calibration_pool import pool_of
from geodtr.export.model import open_model
from geodtr.export.parity import Gates, compare
from geodtr.runtime.embed.pipeline import embed_files
from geodtr.runtime.names import BRANCHES, Precision
from geodtr.runtime.spec import Preprocessing
from geodtr.training.data.spec import read_test_set
from geodtr.training.models.checkpoint import load_checkpoint, save_checkpoint
from geodtr.training.models.embedder import embedders
from geodtr.training.models.geodtr.geodtr import GeoDTR, GeoDTRConfig
from geodtr.training.models.importers.geodtr import AERIAL_SQUARE, GROUND
from geodtr.training.models.importers.official import find_parameters, import_official

SMALLEST_COSINE: dict[Precision, float] = {"fp32": 0.99999, "fp16": 0.9999, "int8": 0.99}


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    weights = official.state_dict(official.polar_shapes())
    release = official.write_release_file(folder / "model.pth", weights)
    out = folder / "model.safetensors"
    save_checkpoint(out, import_official(release, find_parameters(release)), "test")
    return out


@pytest.fixture(scope="module")
def exported(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from geodtr.export.build.source import export_checkpoint

    return export_checkpoint(imported, tmp_path_factory.mktemp("full") / "onnx").path


@pytest.mark.slow
def test_the_graphs_embed_real_images_as_pytorch_does(imported: Path, exported: Path, cvusa_sample: Path) -> None:
    check_cosines(imported, exported, cvusa_sample, "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("precision", SMALLEST_COSINE)
def test_engines_embed_real_images_as_pytorch_does(
    imported: Path,
    exported: Path,
    cvusa_sample: Path,
    tmp_path: Path,
    cli: Callable[..., Outcome],
    precision: Precision,
) -> None:
    out = tmp_path / precision
    calibration = ("--calibration", f"cvusa:{cvusa_sample}") if precision == "int8" else ()
    built = cli("build-engine", exported, "--precision", precision, *calibration, "--out", out)
    assert built.code == 0, built.err
    check_cosines(imported, out, cvusa_sample, precision)


def check_cosines(imported: Path, bundle: Path, sample: Path, precision: Precision) -> None:
    """Compare a bundle's descriptors of real images with PyTorch's."""
    reference, engine = embedders(load_checkpoint(imported).model), open_bundle(bundle).embedders()
    pairs = read_test_set(f"cvusa:{sample}")
    for branch in BRANCHES:
        paths = pairs.paths(branch)
        cosine = np.sum(embed_files(reference[branch], paths) * embed_files(engine[branch], paths), axis=1)
        assert cosine.min() >= SMALLEST_COSINE[precision]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_parity_holds_on_real_images_step_by_step(
    imported: Path, exported: Path, cvusa_sample: Path, tmp_path: Path
) -> None:
    pairs = read_test_set(f"cvusa:{cvusa_sample}")
    candidates = []
    for precision in SMALLEST_COSINE:
        plan = plan_of(precision, Calibration(pool_of(pairs)))
        bundle = build_engine(BuildRequest(exported, tmp_path / precision, plan=plan))
        candidates.append(open_model(bundle.path))
    result = compare(open_model(imported), candidates, pairs, gates=Gates(accept_undecided=True))
    for candidate in result.candidates:
        assert candidate.gate.verdict == "passed", candidate.gate.reasons
        assert candidate.stages[0].from_previous[0].smallest_cosine > 0.99999


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("aerial", ["polar", "square"])
def test_int8_engines_of_the_recipes_weights_are_built_though_arg_maxes_flip(
    cvusa_sample: Path, tmp_path: Path, cli: Callable[..., Outcome], aerial: str
) -> None:
    """Prints how long the build takes; on two quiet cores that should be at most three minutes."""
    shapes = official.polar_shapes()
    if aerial == "square":
        model = GeoDTR(GeoDTRConfig(), GROUND, AERIAL_SQUARE)
        shapes = {name: list(each.shape) for name, each in official.official_names(model.state_dict()).items()}
    release = official.write_release_file(tmp_path / "model.pth", official.state_dict(shapes))
    save_checkpoint(tmp_path / "model.safetensors", import_official(release, find_parameters(release)), "test")
    start = time.perf_counter()
    command = ("--precision", "int8", "--calibration", f"cvusa:{cvusa_sample}", "--out", tmp_path / "int8")
    built = cli("build-engine", tmp_path / "model.safetensors", *command)
    sys.stdout.write(f"{aerial}: int8 built in {time.perf_counter() - start:.0f} s\n")
    assert built.code == 0, built.err
    check_cosines(tmp_path / "model.safetensors", tmp_path / "int8", cvusa_sample, "int8")


def test_a_square_network_of_other_depth_comes_out_of_the_same_file_format(
    tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    config = GeoDTRConfig(descriptors=12, layers=6, heads=8)
    model = GeoDTR(config, GROUND, AERIAL_SQUARE)
    release = official.write_release_file(tmp_path / "square.pth", official.official_names(model.state_dict()), heads=8)
    result = cli("import-checkpoint", release, "--out", tmp_path / "square.safetensors")
    assert result.code == 0, result.err
    assert "descriptors 12, layers 6, heads 8" in result.err
    loaded = load_checkpoint(tmp_path / "square.safetensors").model
    assert loaded.config == config
    assert loaded.specs["aerial"].preprocessing == Preprocessing(height=256, width=256)
    images = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
    expected, got = embedders(model).aerial.embed(images), embedders(loaded).aerial.embed(images)
    assert expected.shape == (1, 512 * 12)
    np.testing.assert_array_equal(got, expected)


def test_the_published_sizes_have_the_published_number_of_parameters() -> None:
    square = GeoDTR(GeoDTRConfig(), GROUND, AERIAL_SQUARE)
    assert sum(parameter.numel() for parameter in square.parameters()) == 47_515_808
