"""TransGeo's second stage is the official one: its files, maps, kept patches, embeddings and beginning."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import official
import pytest
import torch
import torch.nn.functional as F
from conftest import Outcome
from numpy.typing import NDArray
from official import FIGURES
from torch import Tensor
from transgeo_files import EXCEPTIONS, SMALL, network_of, save, timm_names

from geodtr.runtime.errors import CheckpointError, ConfigError
from geodtr.runtime.images.preprocess import load_image, parts
from geodtr.training.data.spec import read_test_set
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.embedder import embedders, normalise
from geodtr.training.models.importers.base import Network
from geodtr.training.models.importers.official import import_official
from geodtr.training.models.registry import build_model
from geodtr.training.models.transgeo.stage_2 import (
    SelectingBranch,
    Selection,
    TransGeoStage2Config,
    begin,
    first_image,
    stage_1_config,
)

SMALL_2 = TransGeoStage2Config(**msgspec.structs.asdict(SMALL))
FIGURES_2 = FIGURES / "transgeo" / "stage2.npz"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of stage 1 and of stage 2."""
    folder, shapes = tmp_path_factory.mktemp("release"), official.shapes_of("transgeo")
    weights = official.state_dict(shapes, EXCEPTIONS)
    differing = json.loads((FIGURES / "transgeo" / "state_dict_stage2_differs.json").read_text())
    second = {**weights, **official.state_dict(differing, EXCEPTIONS)}
    return save(folder / "stage1.pth.tar", weights), save(folder / "stage2.pth.tar", second)


@pytest.fixture(scope="module")
def aerial(release: tuple[Path, Path]) -> SelectingBranch:
    first, second = release
    branch = import_official(second, network=network_of("transgeo-cvusa-stage2"), stage_1=first).branch("aerial")
    assert isinstance(branch, SelectingBranch)
    return branch


def _seeded_images() -> Tensor:
    """The official inputs of both stages side by side, [2, 3, 320, 320 + 256]."""
    small, large = (torch.from_numpy(official.network_input("transgeo-aerial", side, side)) for side in (256, 320))
    return torch.cat([large, F.pad(small, (0, 0, 0, 320 - 256))], dim=3)


def _check_map(
    branch: SelectingBranch, images: Tensor, attention: NDArray[np.float32], levels: NDArray[np.uint8]
) -> int:
    """How many levels are others than the official ones, by one."""
    overviews = images[:, :, : branch.overview, branch.width :]
    torch.testing.assert_close(branch.map.attention(overviews), torch.from_numpy(attention), rtol=0, atol=1e-5)
    difference = (branch.map(overviews) - torch.from_numpy(levels).int()).abs()
    assert difference.max() <= 1
    return int(difference.sum())


def _check_kept(branch: SelectingBranch, levels: NDArray[np.uint8], kept: NDArray[np.int16]) -> None:
    """The same patches where the same levels are given."""
    numbers = branch.selection(torch.from_numpy(levels).int())
    assert numbers.shape == kept.shape
    np.testing.assert_array_equal(numbers.sort(dim=1).values.numpy(), np.sort(kept, axis=1))


def test_map_patches_and_embeddings_are_the_official_ones(aerial: SelectingBranch) -> None:
    figures, images = np.load(FIGURES_2), _seeded_images()
    large = images[..., : aerial.width].numpy()
    assert large.sum(axis=(1, 2, 3), dtype=np.float64) == pytest.approx(figures["aerial_sum"], rel=1e-6)
    expected = torch.from_numpy(figures["aerial_embedding"])
    with torch.inference_mode():
        assert _check_map(aerial, images, figures["attention"], figures["attention_levels"]) <= 1
        _check_kept(aerial, figures["attention_levels"], figures["kept"])
        np.testing.assert_array_equal(aerial.kept(images).sort(dim=1).values, np.sort(figures["kept"], axis=1))
        raw = aerial.raw(images)
    torch.testing.assert_close(raw, expected, rtol=0, atol=3e-5)
    assert F.cosine_similarity(raw, expected).min() > 0.999999


def test_real_images_give_the_official_map_patches_and_embeddings(
    aerial: SelectingBranch, conformance: Path, cvusa_sample: Path
) -> None:
    figures = np.load(conformance / "transgeo" / "embeddings.npz")
    pixels = np.load(conformance / "transgeo" / "pixels.npz")
    how = network_of("transgeo-cvusa-stage2").aerial
    loaded = np.stack([load_image(path, how) for path in read_test_set(f"cvusa:{cvusa_sample}").paths("aerial")])
    image, overview = parts(loaded, how)
    np.testing.assert_array_equal(image[:2], pixels["aerial320"])
    np.testing.assert_array_equal(overview[:2], pixels["aerial256"])
    for part, name in ((image, "real_stage2_aerial_pixel_sum"), (overview, "real_aerial_pixel_sum")):
        assert part.sum(axis=(1, 2, 3), dtype=np.int64).tolist() == figures[name].tolist()
    with torch.inference_mode():
        images = normalise(torch.from_numpy(loaded), how.mean, how.std)
        assert _check_map(aerial, images, figures["attention"][2:], figures["attention_levels"][2:]) <= 3
        _check_kept(aerial, figures["attention_levels"][2:], figures["stage2_kept"][2:])
        raw = aerial.raw(images)
    torch.testing.assert_close(raw, torch.from_numpy(figures["real_stage2_aerial_embedding"]), rtol=0, atol=3e-5)


def test_stage_2_begins_with_the_official_position_table() -> None:
    figures = np.load(FIGURES_2)
    config, how = TransGeoStage2Config(), network_of("transgeo-cvusa-stage2").aerial
    table = official.state_dict({"reference_net.pos_embed": [1, 258, 384]}, EXCEPTIONS)["reference_net.pos_embed"]
    position = begin({"aerial.tokens.position": table}, config, how)["aerial.tokens.position"]
    assert position.shape == (1, 402, 384)
    rows = figures["pos_resized_rows"]
    np.testing.assert_allclose(position[0, rows], figures["pos_resized"], rtol=0, atol=1e-6)
    assert position.double().sum().item() == pytest.approx(figures["pos_resized_sum"].item(), rel=1e-5)


@pytest.mark.parametrize("sides", [(16, 20), (20, 25), (16, 22), (16, 18), (8, 10), (8, 8)])
def test_patches_are_kept_by_the_resized_map_and_of_equal_ones_by_the_larger_index(sides: tuple[int, int]) -> None:
    of, onto = sides
    selection = Selection((of, of), (onto, onto), onto * onto // 2)
    generator = torch.Generator().manual_seed(of)
    levels = torch.randint(0, 12, (5, of, of), generator=generator, dtype=torch.int32)  # so few that many are equal
    resized = F.interpolate(levels[:, None].double(), (onto, onto), mode="bilinear").flatten(1)
    exact = (resized * 2**32).round().numpy()
    for row, numbers in enumerate(selection(levels)):
        order = np.lexsort((np.arange(onto * onto), exact[row]))
        assert numbers.tolist() == order[::-1][: selection.kept].tolist()


def test_a_map_that_32_bits_do_not_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="common factor"):
        Selection((64, 64), (81, 81), 10)


def _files(folder: Path, preset: str = "transgeo-cvusa-stage2") -> tuple[Path, Path, Network]:
    """Small files of stage 1 and stage 2, and the network of stage 2."""
    network = replace(network_of(preset), config=SMALL_2)
    whole = replace(network, config=SMALL, aerial=msgspec.structs.replace(network.aerial, overview=0))
    first = replace(whole, aerial=first_image(network.aerial))
    return (
        save(folder / "1.pth.tar", timm_names(SMALL, first)),
        save(folder / "2.pth.tar", timm_names(SMALL, whole)),
        network,
    )


@pytest.mark.parametrize("preset", ["transgeo-cvusa-stage2", "transgeo-vigor-stage2"])
def test_stage_2_needs_stage_1_and_is_recognised_by_its_shapes(tmp_path: Path, preset: str) -> None:
    first, second, network = _files(tmp_path, preset)
    for given in (None, network):
        with pytest.raises(CheckpointError, match=r"stage 2: .* --stage-1 FILE"):
            import_official(second, network=given)
    if preset == "transgeo-vigor-stage2":
        model = import_official(second, stage_1=first)
        assert model.specs["aerial"].preprocessing.geometry == network.aerial.geometry
    else:
        with pytest.raises(CheckpointError, match="--preset transgeo-cvusa-stage2 or --preset transgeo-cvact-stage2"):
            import_official(second, stage_1=first)
        model = import_official(second, network=network, stage_1=first)
    assert model.config == SMALL_2
    # A preset may describe a network that sees all of a larger image.
    whole = Network(SMALL, network.ground, msgspec.structs.replace(network.aerial, overview=0))
    assert import_official(second, network=whole).config == SMALL


def test_files_of_the_wrong_stage_are_refused_by_name(
    tmp_path: Path, refused: Callable[..., str], cli: Callable[..., Outcome]
) -> None:
    first, second, network = _files(tmp_path)
    names = ("width", "layers", "heads", "feed_forward", "descriptor_size")
    sizes = [part for name in names for part in ("--set", f"model.{name}={getattr(SMALL, name)}")]
    stage_1, stage_2 = (["--preset", f"transgeo-cvusa{end}", *sizes] for end in ("", "-stage2"))
    file = tmp_path / "model.safetensors"
    out = ("--out", file)
    assert "Give stage 1's checkpoint too: --stage-1 FILE" in refused("import-checkpoint", second, *stage_2, *out)
    assert "2.pth.tar is a checkpoint of TransGeo's stage 2" in refused("import-checkpoint", second, *stage_1, *out)
    narrow = ("--set", "ground.width=154", "--set", "ground.imagery.field_of_view=90")
    assert "2.pth.tar is a checkpoint of TransGeo's stage 2" in refused(
        "import-checkpoint", second, *stage_1, *narrow, *out
    )
    for given, of_stage_1 in ((first, first), (first, second)):
        message = refused("import-checkpoint", given, "--stage-1", of_stage_1, *stage_2, *out)
        assert "1.pth.tar is a checkpoint of TransGeo's stage 1" in message
    message = refused("import-checkpoint", second, "--stage-1", second, *stage_2, *out)
    assert "2.pth.tar is a checkpoint of TransGeo's stage 2" in message
    assert "Leave --stage-1 out" in refused("import-checkpoint", first, "--stage-1", second, *stage_1, *out)
    assert "Check --stage-1" in refused("import-checkpoint", second, "--stage-1", tmp_path / "3.pth", *stage_2, *out)
    imported = cli("import-checkpoint", second, "--stage-1", first, *stage_2, *out)
    assert imported.code == 0, imported.err
    assert "aerial 320x320 with an overview of 256" in imported.err
    assert load_checkpoint(file).info.aerial == network.aerial


@pytest.mark.parametrize("damage", ["missing", "not finite", "sibling"])
def test_a_damaged_file_of_stage_1_is_refused(tmp_path: Path, damage: str) -> None:
    first, second, network = _files(tmp_path)
    weights = timm_names(SMALL, Network(stage_1_config(SMALL_2), network.ground, first_image(network.aerial)))
    name = "reference_net.blocks.1.attn.qkv.bias"
    if damage == "missing":
        del weights[name]
    elif damage == "not finite":
        weights[name][0] = np.nan
    else:
        weights = {f"model_grd.{name}": tensor for name, tensor in weights.items()}
    expected = "L2LTR" if damage == "sibling" else rf"1\.pth.*aerial\.layers\.1\.attention\..* {damage}"
    with pytest.raises(CheckpointError, match=expected):
        import_official(second, network=network, stage_1=save(first, weights))


def test_what_the_network_does_not_see_does_not_change_its_descriptor() -> None:
    network = network_of("world-transgeo-stage2")
    torch.manual_seed(3)
    model = build_model(network.config, network.ground, network.aerial)
    branch = model.branch("aerial")
    assert isinstance(branch, SelectingBranch)
    how, patch = network.aerial, branch.tokens.embedding.kernel_size[0]
    images = np.random.default_rng(1).integers(0, 256, (2, *how.shape), np.uint8)
    with torch.inference_mode():
        kept = branch.kept(normalise(torch.from_numpy(images), how.mean, how.std)).numpy()
    before = embedders(model).aerial.embed(images)
    columns = how.width // patch
    for number in set(range(columns**2)) - set(kept[0].tolist()):
        row, column = divmod(number, columns)
        images[0, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] ^= 255
    np.testing.assert_array_equal(embedders(model).aerial.embed(images), before)
    row, column = divmod(int(kept[0, 0]), columns)
    images[0, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] ^= 255
    after = embedders(model).aerial.embed(images)
    assert np.abs(after - before).max(axis=1).tolist()[0] > 1e-4


@pytest.mark.parametrize(
    ("preset", "settings", "expected"),
    [
        ("world-transgeo-stage2", {"overview": 0}, "aerial.overview=256"),
        ("world-transgeo", {"overview": 16}, "takes an overview"),
        ("world-transgeo-stage2", {"overview": 4}, "holds no patch"),
    ],
)
def test_an_overview_goes_with_stage_2_alone(preset: str, settings: dict[str, int], expected: str) -> None:
    network = network_of(preset)
    with pytest.raises(ConfigError, match=expected):
        build_model(network.config, network.ground, msgspec.structs.replace(network.aerial, **settings))
