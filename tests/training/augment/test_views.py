"""Panoramas are rolled and cut to a field of view in one way, in training as in evaluation, and the same every time."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Losses, Outcome, Stop, Stopping, World
from numpy.typing import NDArray
from official import FIGURES
from PIL import Image

from geodtr.export.build.source import export_checkpoint
from geodtr.export.calibration_pool import pool_of
from geodtr.export.model import open_model
from geodtr.runtime.errors import ConfigError, DataError, ImageError
from geodtr.runtime.images.decode import decode
from geodtr.runtime.images.intake import AS_TAKEN
from geodtr.runtime.images.preprocess import preprocess
from geodtr.runtime.names import BRANCHES, Branch
from geodtr.runtime.spec import BranchSpec, Correlation, Imagery, Preprocessing
from geodtr.training.augment.layout_simulation import LayoutChange
from geodtr.training.augment.views import cut_views
from geodtr.training.augmented import seen
from geodtr.training.config import TrainConfig, limit_field
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.prepare import prepare
from geodtr.training.data.readers.pairs_csv import read_pairs, write_pairs
from geodtr.training.data.readers.prepared import read_prepared
from geodtr.training.data.views import View, Views, columns_of, full_panorama, load_query, seen_of, to_the_middle
from geodtr.training.evaluation.evaluate import embed_branch, embed_pairs, evaluate
from geodtr.training.loop import resume, train
from geodtr.training.models.checkpoint import save_checkpoint
from geodtr.training.models.dsm import scorer_of
from geodtr.training.models.embedder import embedders
from geodtr.training.models.registry import build_model
from geodtr.training.pair_images import PairImages
from geodtr.training.parallel.distributed import Ranks
from geodtr.training.presets.load import load_preset
from geodtr.training.trainer import Trainer

FLOAT32 = "machine.precision=float32"
"""Not every processor multiplies in bf16."""
ANY_FIELD = ("recipe.epochs=2", "recipe.batch_size=8", "recipe.consistency=1", "model.widths=[8,8,16]", FLOAT32)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    """Sixteen pairs of noise that is smooth enough to resize; no panorama has two equal columns."""
    root = tmp_path_factory.mktemp("pairs")
    draw = np.random.default_rng(0)
    for branch, size in (("ground", (32, 128)), ("aerial", (64, 64))):
        (root / branch).mkdir()
        for row in range(16):
            coarse = Image.fromarray(draw.integers(0, 256, (8, 16, 3), np.uint8))
            coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(root / branch / f"{row}.png")
    write_pairs(root, ((f"ground/{row}.png", f"aerial/{row}.png", 0.0, row / 1000, 0.0) for row in range(16)))
    return read_pairs(root)


def test_the_default_rolls_are_the_rolls_of_dsms_published_test() -> None:
    official = np.load(FIGURES / "dsm" / "embeddings.npz")["official_test_shift_360_first20"]
    drawn = Views(90, "unknown").of_pairs(100)[: len(official)]
    assert [int(view.roll * 512) for view in drawn if view is not None and view.roll is not None] == official.tolist()


def dsm(width: int) -> tuple[Preprocessing, Correlation]:
    config = load_preset("dsm-cvusa", [f"ground.width={width}", f"ground.imagery.field_of_view={360 * width / 512}"])
    return config.ground, scorer_of(config.model, config.ground, config.aerial)  # type: ignore[arg-type] # the preset's


@pytest.mark.parametrize(("field_of_view", "width"), [(360, 512), (180, 256), (90, 128), (70, 99)])
def test_dsm_gets_as_many_columns_as_its_release_cuts(pairs: PairSet, field_of_view: int, width: int) -> None:
    how, scorer = dsm(width)
    path, shift = pairs.pairs[0].ground, 200
    whole = preprocess(decode(path).image, dsm(512)[0])
    cut = load_query(path, View(field_of_view, (shift + 0.5) / 512), how, scorer)
    np.testing.assert_array_equal(cut, whole[:, (np.arange(width) - shift) % 512])


def test_a_model_of_full_panoramas_gets_the_field_of_view_in_all_its_columns(pairs: PairSet) -> None:
    how = load_preset("world-tiny").ground
    path = pairs.pairs[0].ground
    wide = preprocess(decode(path).image, full_panorama(how, 90))
    assert wide.shape[1] == 4 * how.width
    # Of a known heading: the middle of the view looks north, as the middle of an aligned panorama does.
    np.testing.assert_array_equal(load_query(path, View(90), how), wide[:, 192:320])


@pytest.mark.parametrize("field_of_view", [360.0, 180.0, 90.0, 70.0])
def test_training_sees_what_evaluation_sees(pairs: PairSet, field_of_view: float) -> None:
    how, fields = load_preset("world-any-field", ["ground.width=128"]).ground, (360.0, 180.0, 90.0, 70.0)
    path = pairs.pairs[0].ground
    panorama = preprocess(decode(path).image, full_panorama(how, min(fields)))
    width = panorama.shape[1]
    columns = how.width if field_of_view == min(fields) else columns_of(field_of_view, width)
    change = LayoutChange(torch.tensor([0.3]), torch.tensor([False]))
    cut = cut_views(
        torch.tensor(panorama)[None], change, torch.tensor([fields.index(field_of_view)]), fields, how.width
    )[0].numpy()
    roll = (round(0.3 * width) + to_the_middle(width, columns)) / width % 1
    expected = load_query(path, View(field_of_view, roll), how)
    if field_of_view == min(fields):
        np.testing.assert_array_equal(cut, expected)
    else:  # resized once more, and rolled by other whole columns
        beside = load_query(path, View(field_of_view, (roll + 4 / 128) % 1), how)
        off, off_beside = (np.abs(cut.astype(float) - other).mean() for other in (expected, beside))
        assert off < min(4, off_beside / 4)


def test_a_view_belongs_to_the_pair_and_the_epoch_in_any_batch(pairs: PairSet) -> None:
    config = load_preset("world-any-field", ANY_FIELD)
    trainer = Trainer(config, Ranks())
    images = PairImages(
        pairs, {"ground": full_panorama(config.ground, 70), "aerial": config.aerial}, cache_bytes=float("inf")
    )
    views = [trainer.views_of(len(pairs), epoch) for epoch in (0, 0, 1)]

    def cut(size: int, epoch: int, order: list[int]) -> NDArray[np.uint8]:
        rows = torch.split(torch.tensor(order), size)
        parts = torch.cat([seen(config, batch) for batch in images.batches(rows, views[epoch])])
        return parts[torch.argsort(torch.tensor(order))].numpy()

    first = cut(4, 0, list(range(16)))
    np.testing.assert_array_equal(first, cut(16, 1, list(reversed(range(16)))))
    assert first.shape == (16, 32, config.ground.width, 3)
    assert (first != cut(4, 2, list(range(16)))).any(axis=(1, 2, 3)).all(), "the next epoch has views of its own"


def test_a_run_for_all_fields_of_view_resumes_to_the_last_bit(pairs: PairSet, tmp_path: Path) -> None:
    config = load_preset("world-any-field", ANY_FIELD)
    whole = train(config, pairs, tmp_path / "whole", validation=pairs).read_bytes()
    heard = Stopping(after=3)
    with pytest.raises(Stop):
        train(config, pairs, tmp_path / "stopped", validation=pairs, listener=heard)
    rest = Losses()
    assert resume(tmp_path / "stopped", pairs, validation=pairs, listener=rest).read_bytes() == whole
    assert len(rest.losses) == 2, "of the second epoch, which had begun"


def test_micro_batches_keep_the_views_and_the_consistency(pairs: PairSet) -> None:
    losses = []
    for micro_batch in (16, 8):
        settings = ("recipe.batch_size=16", f"recipe.micro_batch={micro_batch}", "recipe.counterfactual_weight=0")
        # Without batch normalisation, whose statistics are a micro-batch's.
        config = load_preset(
            "world-safa", [*settings, "recipe.fields=[180,90]", "recipe.consistency=1", "recipe.heading_error=180"]
        )
        images = PairImages(
            pairs, {"ground": full_panorama(config.ground, 90), "aerial": config.aerial}, cache_bytes=float("inf")
        )
        steps = Trainer(config, Ranks(), total=10).steps(images, [torch.arange(16)], 0)
        losses.append(next(iter(steps)).loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_model_for_all_fields_of_view_learns_at_each_of_them(world: World, tmp_path: Path) -> None:
    few = world.train_set.first(64)
    config = load_preset("world-any-field", ["recipe.epochs=30", "recipe.batch_size=32", FLOAT32])
    model = open_model(train(config, few, tmp_path / "run")).embedders
    recalls = [evaluate(model, few.seen(Views(field, "unknown"))).at_1 for field in config.recipe.fields]
    assert np.mean(recalls) > 4 / len(few), f"chance is 1 of {len(few)}"
    assert min(recalls) > 1 / len(few)


def test_a_model_is_trained_evaluated_and_compared_at_a_field_of_view(
    pairs: PairSet, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    run, views = tmp_path / "run", ("--fov", 90, "--heading", "unknown")
    small = ("--preset", "world-tiny", "--epochs", 1, "--set", "recipe.batch_size=16")
    result = cli("train", "--data", pairs.name, "--out", run, *small, *views)
    assert result.code == 0, result.err
    config = load_preset(str(run / "config.toml"))
    assert (config.ground.width, config.recipe.fields, config.recipe.heading_error) == (32, (90.0,), 180)
    assert (config.ground.imagery.field_of_view, config.ground.imagery.aspect) == (90, 1.0)

    result = cli("evaluate", run, "--data", pairs.name, *views, "--sheet", tmp_path / "sheet.png")
    assert result.code == 0, result.err
    assert "90° of view, unknown heading" in result.out
    document = json.loads(cli("evaluate", run, "--data", pairs.name, *views, "--json").out)
    assert document["views"] == {"field_of_view": 90.0, "heading": "unknown", "seed": 2019, "rows": None}

    # What was seen, kept as files: to calibrate on, or for another program.
    result = cli("data", "prepare", pairs.name, "--out", tmp_path / "seen", "--preset", run / "config.toml", *views)
    assert result.code == 0, result.err
    embedder = open_model(run).embedders.ground
    kept = embed_branch(embedder, read_prepared(tmp_path / "seen"))
    np.testing.assert_array_equal(kept, embed_branch(embedder, pairs.seen(Views(90, "unknown"))))


@pytest.fixture(scope="module")
def spheres(pairs: PairSet, tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    """The same panoramas with as much sky and street again, as CVACT's are beside CVUSA's."""
    root = tmp_path_factory.mktemp("spheres")
    (root / "ground").mkdir()
    for row, pair in enumerate(pairs.pairs):
        sphere = Image.new("RGB", (128, 64), "blue")
        sphere.paste(Image.open(pair.ground), (0, 16))
        sphere.save(root / "ground" / f"{row}.png")
    tiles = (str(pair.aerial) for pair in pairs.pairs)
    write_pairs(root, ((f"ground/{row}.png", tile, 0.0, row / 1000, 0.0) for row, tile in enumerate(tiles)))
    return read_pairs(root)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = load_preset("world-tiny")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("random") / "model.safetensors"
    save_checkpoint(path, build_model(config.model, config.ground, config.aerial), "random")
    return path


@pytest.mark.parametrize("view", [Views(), Views(360, "unknown"), Views(90)])
def test_a_model_of_cropped_panoramas_sees_the_stated_rows_of_spheres(
    pairs: PairSet, spheres: PairSet, random_model: Path, view: Views
) -> None:
    ground = open_model(random_model).embedders.ground
    kept = embed_branch(ground, spheres.seen(replace(view, rows=(0.25, 0.75))))
    np.testing.assert_array_equal(kept, embed_branch(ground, pairs.seen(view)))


def test_panoramas_of_another_shape_than_the_models_are_named(
    pairs: PairSet, spheres: PairSet, random_model: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    bundle = export_checkpoint(random_model, tmp_path / "onnx").path
    for command in (["evaluate", random_model], ["parity", random_model, bundle, "--no-stages"]):
        doubted = " ".join(cli(*command, "--data", spheres.name).err.split())
        assert "has 128x64 pixels, an aspect of 2:1; the model was trained on panoramas of 360" in doubted
        assert "--rows FROM,TO" in doubted
        for fine in (["--data", pairs.name], ["--data", spheres.name, "--rows", "0.25,0.75"]):
            assert "the model was trained on" not in cli(*command, *fine).err
    result = cli("evaluate", random_model, "--data", spheres.name, "--rows", "0.25,0.75", "--json")
    assert json.loads(result.out)["views"]["rows"] == [0.25, 0.75]
    for data, named in ((spheres, True), (pairs, False)):
        calibrated = cli("calibrate", bundle, "--data", data.name, "--out", tmp_path / "ranges.json").err
        assert ("an aspect of 2:1; the model was trained on" in " ".join(calibrated.split())) == named
    figures = json.loads(cli("parity", random_model, bundle, "--no-stages", "--data", spheres.name, "--json").out)
    assert "an aspect of 2:1" in figures["doubt"]
    for wrong in ("0.75,0.25", "0.5", "a,b"):
        refused = cli("evaluate", random_model, "--data", spheres.name, "--rows", wrong)
        assert refused.code == 2
        assert "--rows" in refused.err and "0.25,0.75" in refused.err


def test_pictures_show_what_is_seen_of_a_sphere(pairs: PairSet, spheres: PairSet) -> None:
    pixels, sphere = (np.asarray(decode(each.pairs[0].ground).image) for each in (pairs, spheres))
    for view in (View(360), View(90), View(180, 0.25)):
        np.testing.assert_array_equal(seen_of(sphere, replace(view, rows=(0.25, 0.75))), seen_of(pixels, view))


def test_views_are_part_of_what_a_set_is(pairs: PairSet) -> None:
    rolled = pairs.seen(Views(90, "unknown"))
    assert rolled.first(5).pairs == pairs.first(5).seen(Views(90, "unknown")).pairs
    assert rolled.fingerprint() != pairs.fingerprint() != pairs.seen(Views(180)).fingerprint()
    assert pairs.seen(Views()).fingerprint() == pairs.fingerprint()
    assert rolled.pairs != pairs.seen(Views(90, "unknown", seed=1)).pairs


def test_a_view_of_an_image_that_is_no_full_turn_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "photo.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "tile.png")
    write_pairs(tmp_path, [("photo.png", "tile.png", 0.0, 0.0, 0.0)])
    config = load_preset("world-tiny")
    model = embedders(build_model(config.model, config.ground, config.aerial))
    with pytest.raises(DataError, match=r"64x48 pixels, which is no full turn.*Leave --fov"):
        embed_pairs(model, read_pairs(tmp_path).seen(Views(90)))
    Image.new("RGB", (64, 64)).save(tmp_path / "other.png")
    write_pairs(tmp_path, (("photo.png", tile, 0.0, 0.0, 0.0) for tile in ("tile.png", "other.png")))
    with pytest.raises(ImageError, match=r"photo\.png has 64x48 pixels, which is no full turn.*recipe\.fields=\[\]"):
        train(load_preset("world-any-field", ["recipe.batch_size=2"]), read_pairs(tmp_path), tmp_path / "run")


def test_prepared_panoramas_have_a_models_shape_and_are_trained_on_and_cut(pairs: PairSet, tmp_path: Path) -> None:
    # A square input, of which a square of the panorama's width is prepared: no shape of a full turn.
    config = load_preset(
        "world-any-field", [*ANY_FIELD, "recipe.epochs=1", "recipe.fields=[180]", "ground.height=64", "ground.width=32"]
    )
    wanted: dict[Branch, Preprocessing] = {"ground": full_panorama(config.ground, 180), "aerial": config.aerial}
    prepare(tmp_path / "prepared", pairs, wanted)
    prepared = read_prepared(tmp_path / "prepared")
    assert decode(prepared.pairs[0].ground).image.size == (64, 64)
    train(config, prepared, tmp_path / "run", validation=prepared)
    view = View(180, 0.25)
    original, again = (load_query(each.pairs[0].ground, view, config.ground) for each in (pairs, prepared))
    np.testing.assert_array_equal(again, original)


def test_calibration_gets_what_is_seen(pairs: PairSet) -> None:
    rolled = pairs.seen(Views(90, "unknown"))
    whole, pool = pool_of(pairs), pool_of(rolled)
    spec = BranchSpec(branch="ground", preprocessing=load_preset("world-tiny").ground, descriptor_size=8)
    for pair in rolled.pairs[:3]:
        np.testing.assert_array_equal(
            pool.load(spec, pair.ground), load_query(pair.ground, pair.view, spec.preprocessing)
        )
    assert [pool.names_sha256(branch) == whole.names_sha256(branch) for branch in BRANCHES] == [False, True]


@pytest.mark.parametrize("arguments", [("--fov", 0), ("--fov", 400), ("--fov", "nan"), ("--heading", "perhaps")])
def test_impossible_views_are_refused_before_anything_is_written(
    pairs: PairSet, tmp_path: Path, cli: Callable[..., Outcome], arguments: tuple[object, ...]
) -> None:
    result = cli("train", "--data", pairs.name, "--out", tmp_path / "run", *arguments)
    assert result.code == 2
    assert str(arguments[1]) in result.err
    assert not (tmp_path / "run").exists()


def test_dsm_refuses_another_field_of_view_than_its_columns(pairs: PairSet) -> None:
    how, scorer = dsm(128)
    with pytest.raises(ConfigError, match=r"180°, and 128 columns of this model are 90°.*--fov 90"):
        load_query(pairs.pairs[0].ground, View(180), how, scorer)


def test_the_ground_branch_gets_the_columns_of_the_releases() -> None:
    def width(preset: str, *fields: float) -> int:
        config: TrainConfig = load_preset(preset)
        for field in fields:
            config = limit_field(config, field, "unknown")
        return config.ground.width

    assert [width("dsm-cvusa", field) for field in (360, 180, 90, 70)] == [512, 256, 128, 99]
    assert [width("transgeo-cvusa", field) for field in (180, 90)] == [308, 154]
    assert width("dsm-cvusa", 70, 180) == 256


def test_a_field_of_view_that_is_whole_columns_gives_these_columns() -> None:
    assert all(columns_of(360 * seen / 616, 616) == seen for seen in range(1, 617))
    assert columns_of(70, 512) == 99
    assert columns_of(0.1, 64) == 1


@pytest.mark.parametrize("preset", ["world-dsm", "world-tiny"])
def test_images_of_a_small_field_of_view_are_validated_as_they_are(preset: str) -> None:
    settings = ["recipe.heading_error=180", "ground.width=32", "ground.imagery.field_of_view=90"]
    assert load_preset(preset, settings).validation_views == Views()
    assert load_preset(preset, [*settings, "recipe.fields=[90]"]).validation_views == Views(90, "unknown")


@pytest.mark.parametrize(
    ("preset", "settings", "message"),
    [
        ("world-dsm", ["recipe.fields=[180,90]"], r'\[180,90\].*"dsm" has as many columns as one field'),
        ("world-tiny", ["recipe.consistency=1"], r"recipe\.fields are \[\].*recipe\.fields=\[180,90\]"),
        ("world-tiny", ["recipe.fields=[400]"], r"recipe\.fields"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(preset: str, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_preset(preset, settings)


def test_an_image_for_a_model_of_a_limited_view_is_not_rolled(pairs: PairSet) -> None:
    image = decode(pairs.pairs[0].ground)
    assert AS_TAKEN.take(image, Imagery(projection="panorama"), "it").full_turn
    assert not AS_TAKEN.take(image, Imagery(projection="panorama", field_of_view=90), "it").full_turn
