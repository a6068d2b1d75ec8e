"""DSM is the official one: its files, pixels, maps, distances, orientations and loss."""

import json
import zlib
from functools import cache
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import official
import pytest
import torch
from numpy.typing import NDArray
from official import FIGURES
from tensorflow_file import save_tensorflow
from torch import Tensor

from geodtr.export.graph.raw_tiles import raw_tile_spec
from geodtr.export.pixel_baseline import pixel_baseline
from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.search.exact import search_correlated
from geodtr.runtime.spec import Correlation
from geodtr.training.data.spec import read_test_set
from geodtr.training.losses.contrastive import soft_margin_triplet
from geodtr.training.models.dsm import Dsm, DsmConfig
from geodtr.training.models.embedder import embedders, normalise
from geodtr.training.models.importers.base import Network
from geodtr.training.models.importers.official import import_official
from geodtr.training.models.registry import build_model
from geodtr.training.presets.load import load_preset

WIDTHS = {360: 512, 180: 256, 90: 128, 70: 99}
SEEN = {360: 64, 180: 32, 90: 16, 70: 13}


def network(field_of_view: int = 360) -> Network:
    view = [f"ground.width={WIDTHS[field_of_view]}", f"ground.imagery.field_of_view={field_of_view}"]
    config = load_preset("dsm-cvusa", view)
    return Network(config.model, config.ground, config.aerial)


@cache
def weights() -> dict[str, NDArray[np.float32]]:
    return official.tensorflow_variables(official.shapes_of("dsm"))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tensorflow(tmp_path_factory.mktemp("release") / "model.ckpt", weights())


@pytest.fixture(scope="module")
def model(release: Path) -> Dsm:
    imported = import_official(release, network=network())
    assert isinstance(imported, Dsm)
    return imported


def channels_last(maps: Tensor) -> NDArray[Any]:
    return maps.permute(0, 2, 3, 1).numpy()


def rows_of(maps: NDArray[Any]) -> NDArray[np.float32]:
    """[n, h, w, c] -> rows, column by column."""
    rows = maps.transpose(0, 2, 1, 3).reshape(len(maps), -1)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def scorer(field_of_view: int) -> Correlation:
    built = build_model(DsmConfig(), *(getattr(network(field_of_view), b) for b in ("ground", "aerial")))
    assert isinstance(built, Dsm)
    return built.scorer


def test_the_importer_takes_every_official_variable_and_leaves_none_unfilled(model: Dsm) -> None:
    assert len(model.state_dict()) == 52
    assert sum(parameter.numel() for parameter in model.parameters()) == 17_943_840
    assert model.scorer == Correlation(columns=64, seen=64, values=64, field_of_view=360)


def test_maps_are_the_official_ones_at_every_field_of_view(model: Dsm) -> None:
    figures = np.load(FIGURES / "dsm" / "embeddings.npz")
    aerial, ground = (official.network_input(name, 128, 512) for name in ("sat-128x512", "grd-128x512"))
    for images, side in ((aerial, "sat"), (ground, "grd")):
        assert images.sum(dtype=np.float64) == pytest.approx(float(figures[f"{side}_sum"]), rel=1e-6)
    rolled = np.stack([np.roll(image, shift, axis=2) for image, shift in zip(ground, (0, 200), strict=True)])
    with torch.inference_mode():
        blue_first = torch.from_numpy(aerial).flip(1)  # the network takes red first
        maps = channels_last(model.aerial.maps(blue_first))
        np.testing.assert_allclose(maps, figures["synth_sat"], atol=1e-5 * np.abs(figures["synth_sat"]).max())
        np.testing.assert_allclose(model.aerial(blue_first), rows_of(figures["synth_sat"]), atol=1e-6)
        for field_of_view, width in WIDTHS.items():
            name = "synth_grd" if field_of_view == 360 else f"synth_grd_fov{field_of_view}"
            seen = torch.from_numpy(rolled[..., :width].copy()).flip(1)
            np.testing.assert_allclose(model.ground(seen), rows_of(figures[name]), atol=1e-6)


@pytest.mark.parametrize("field_of_view", WIDTHS)
def test_distances_and_orientations_are_the_official_ones_in_search_and_in_the_loss(field_of_view: int) -> None:
    _check_scores(np.load(FIGURES / "dsm" / "embeddings.npz"), "synth", field_of_view)


@pytest.mark.parametrize("field_of_view", WIDTHS)
def test_distances_and_orientations_of_real_images_are_the_official_ones(conformance: Path, field_of_view: int) -> None:
    _check_scores(np.load(conformance / "dsm" / "embeddings.npz"), "real", field_of_view)


def _check_scores(figures: Any, kind: str, field_of_view: int) -> None:
    how = scorer(field_of_view)
    assert (how.columns, how.seen) == (64, SEEN[field_of_view])
    ground = figures[f"{kind}_grd" if field_of_view == 360 else f"{kind}_grd_fov{field_of_view}"]
    queries, references = rows_of(ground), rows_of(figures[f"{kind}_sat"])
    distance = figures[f"{kind}_distance_fov{field_of_view}"]
    hits = search_correlated(queries, references, len(references), how)
    order = np.argsort(hits.rows, axis=1)
    np.testing.assert_allclose(2 - 2 * np.take_along_axis(hits.scores, order, 1), distance, atol=1e-6)
    columns = figures[f"{kind}_orientation_fov{field_of_view}"].T
    looking = (columns * 360 / 64 + how.field_of_view / 2 - 180) % 360
    assert hits.headings is not None
    np.testing.assert_allclose(np.take_along_axis(hits.headings, order, 1), looking)
    model = build_model(DsmConfig(widths=(4, 4, 4, 4)), network(field_of_view).ground, network().aerial)
    compared = model.similarity(torch.from_numpy(queries), torch.from_numpy(references))
    np.testing.assert_allclose(2 - 2 * compared, distance, atol=1e-6)


def test_pixels_and_maps_of_real_images_are_the_official_ones(
    model: Dsm, conformance: Path, cvusa_sample: Path
) -> None:
    figures = np.load(conformance / "dsm" / "embeddings.npz")
    pairs = read_test_set(f"cvusa:{cvusa_sample}").pairs
    aerial, ground = (
        np.stack([load_image(getattr(pair, branch), getattr(network(), branch)) for pair in pairs])
        for branch in ("aerial", "ground")
    )
    for images, name in ((aerial, "polar"), (ground, "ground")):
        np.testing.assert_array_equal(images[1], figures[f"real_{name}_u8_second"][0])
        assert [zlib.crc32(image.tobytes()) for image in images] == figures[f"real_{name}_crc"].tolist()
    turned = np.stack([np.roll(image, shift, axis=1) for image, shift in zip(ground, figures["shifts"], strict=True)])
    how = network().ground
    with torch.inference_mode():
        maps = model.aerial(normalise(torch.from_numpy(aerial[:2]), how.mean, how.std))
        np.testing.assert_allclose(maps, rows_of(figures["real_sat"][:2]), atol=1e-6)
        maps = model.ground(normalise(torch.from_numpy(turned[1:3, :, :128].copy()), how.mean, how.std))
        np.testing.assert_allclose(maps, rows_of(figures["real_grd_fov90"][1:3]), atol=1e-6)


def test_the_loss_is_the_official_one_but_for_the_diagonal_s_constant() -> None:
    values = json.loads((FIGURES / "dsm" / "values.json").read_text())
    aerial = official.seeded("tf-loss-sat").standard_normal((16, 64))
    ground = aerial + 3 * official.seeded("tf-loss-grd").standard_normal((16, 64))
    first, second = (torch.from_numpy(each / np.linalg.norm(each, axis=1, keepdims=True)) for each in (ground, aerial))
    assert soft_margin_triplet(first, second).item() + log(2) / 15 == pytest.approx(values["loss"], rel=1e-6)


def test_what_the_file_does_not_tell_must_be_named(release: Path) -> None:
    with pytest.raises(CheckpointError, match=r"--preset dsm-cvusa or --preset dsm-cvact.*ground\.width=256"):
        import_official(release)


def test_a_siblings_checkpoint_is_refused(release: Path) -> None:
    cvft = load_preset("cvft-cvusa")
    with pytest.raises(CheckpointError, match="is a checkpoint of DSM; the preset describes another model"):
        import_official(release, network=Network(cvft.model, cvft.ground, cvft.aerial))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("recipe.loss=her", "compare descriptors by their cosine"),
        ("recipe.negatives=mined", "compare descriptors by their cosine"),
    ],
)
def test_what_compares_by_the_cosine_is_refused(setting: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_preset("world-dsm", [setting])


def test_a_width_that_is_not_the_field_of_view_is_refused() -> None:
    config = load_preset("dsm-cvusa", ["ground.width=128"])
    with pytest.raises(ConfigError, match=r"field of view of 90 degrees.*--set ground.imagery.field_of_view=90"):
        build_model(config.model, config.ground, config.aerial)


def test_raw_pixels_have_no_scorer_and_no_graph_stretches_tiles() -> None:
    config = load_preset("world-dsm")
    model = build_model(config.model, config.ground, config.aerial)
    baseline = pixel_baseline(embedders(model))
    assert (baseline.ground.spec.scorer, baseline.aerial.spec.descriptor_size) == (None, 32 * 128 * 3)
    with pytest.raises(ConfigError, match="tiles are stretched"):
        raw_tile_spec(model.specs["aerial"], 64)


@pytest.mark.parametrize("setting", ["ground.width=640", "ground.height=64", "aerial.width=516"])
def test_inputs_that_cannot_be_compared_are_refused(setting: str) -> None:
    config = load_preset("dsm-cvusa", [setting])
    with pytest.raises(ConfigError, match="compares polar-transformed tiles"):
        build_model(config.model, config.ground, config.aerial)
