"""Evaluation separates same area and cross area, lists published figures, and draws results and saliency."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from conftest import Outcome, Trained
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geodtr.export.build.source import export_checkpoint
from geodtr.export.plots.sheets.retrieval import retrieved
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.recall import rank
from geodtr.training.data.counting import ANY_NEAR_TILE, OWN_TILE, countings
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.data.spec import KINDS
from geodtr.training.evaluation.evaluate import DescriptorPair, embed_pairs, evaluate
from geodtr.training.evaluation.published import rows
from geodtr.training.evaluation.transfer import NAMES, Area, area
from geodtr.training.models.checkpoint import load_checkpoint, save_checkpoint
from geodtr.training.models.embedder import embedders
from geodtr.training.models.geodtr.layout import LayoutBranch


def test_two_data_sets_are_two_rows_with_their_areas(trained: Trained, cli: Callable[..., Outcome]) -> None:
    train, test = trained.train_set.name, trained.test_set.name
    result = cli("evaluate", trained.checkpoint, "--data", train, "--data", test, "--trained-on", train, "--limit", 40)
    assert result.code == 0, result.err
    rows = [line.split() for line in result.out.splitlines()[2:]]
    assert [row[:4] for row in rows] == [
        ["pairs:train", "->", "pairs:train", "same"],
        ["pairs:train", "->", "pairs:test", "cross"],
    ]


def test_json_holds_all_figures_of_the_table_and_more(trained: Trained, cli: Callable[..., Outcome]) -> None:
    result = cli("evaluate", trained.bundles["fp32"].path, "--data", trained.test_set.name, "--json")
    (only,) = json.loads(result.out)["results"]
    assert only["area"] == ""
    measured = only["recall"]["own tile"]
    assert measured["queries"] == measured["references"] == len(trained.test_set)
    assert 0 < measured["at_1"] <= measured["at_1_percent"] <= measured["at_1_percent_plus_1"]
    assert measured["pessimistic_at_1"] <= measured["at_1"]
    assert {"tied", "alike"} <= set(measured)


def test_what_a_model_was_trained_on_goes_from_the_checkpoint_into_bundles(
    trained: Trained, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    checkpoint = tmp_path / "knows.safetensors"
    _save_trained_on(trained.checkpoint, checkpoint, trained.train_set.name)
    bundle = export_checkpoint(checkpoint, tmp_path / "onnx")
    for model in (checkpoint, bundle.path):
        result = cli("evaluate", model, "--data", trained.train_set.name, "--limit", 20, "--json")
        document = json.loads(result.out)
        assert document["trained_on"] == trained.train_set.name
        assert document["results"][0]["area"] == "same"


@pytest.mark.parametrize(
    ("trained_on", "tested_on", "stated", "expected"),
    [
        (None, "cvusa:x", False, ""),
        ("cvusa:/a/CVUSA#train", "cvusa:/elsewhere#val", False, "same"),
        ("cvusa:/a/CVUSA#train", "cvact:/a/CVACT#val", False, "cross"),
        ("cvact", "cvusa:/a", True, "cross"),
        ("vigor:/v#same-train", "vigor:/v#same-test", False, "same"),
        ("vigor:/v#cross-train", "vigor:/v#cross-test", False, "cross"),
        ("vigor:/v#same-train", "vigor:/v#cross-test", False, "same"),
        ("vigor:/v#cross-train", "vigor:/v#same-test", False, ""),
        ("gta:/g#cross-train", "gta:/g#cross-d2s", False, "cross"),
        ("gta:/g#same-train", "gta:/g#same-s2d", False, "same"),
        ("university:/u#train", "university:/u#s2d", False, "cross"),
        ("university", "university:/u#d2s", True, "cross"),
        ("university:/u", "university:/u", False, "cross"),
        ("university", "university:/u#train", True, "same"),
        ("gta", "gta:/g#same-d2s", True, "same"),
        ("gta:/g#cross-train", "gta:/g", False, ""),
        ("denseuav:/d#d2s", "denseuav:/d#d2s", False, "same"),
        ("sues:/s#train-150", "sues:/s#d2s-300", False, "same"),
        ("pairs:/a/b", "pairs:/a/b", False, "same"),
        ("pairs:/a/b", "pairs:/a/c/../b", False, "same"),
        ("pairs:/a/b", "pairs:/a/c", False, ""),
        ("cvusa:/a", "pairs:/a", False, ""),
        ("pairs:/a", "pairs:/a/c", True, "same"),
        ("pairs:/a/b", "pairs:/a/c", True, "cross"),
        ("cvusa", "pairs:/a", True, "cross"),
    ],
)
def test_areas(trained_on: str | None, tested_on: str, stated: bool, expected: Area) -> None:
    assert area(trained_on, tested_on, stated=stated) == expected


def test_the_kinds_that_need_a_path_are_those_that_help_names(cli: Callable[..., Outcome]) -> None:
    needed = " and ".join(f"{kind}:" for kind in KINDS if kind not in NAMES)
    assert f"only {needed} need a path" in " ".join(cli("evaluate", "--help").out.replace("│", " ").split())


@pytest.fixture
def cvusa(trained: Trained, tmp_path: Path) -> Path:
    """A small CVUSA of generated pairs, in its own layout."""
    root = tmp_path / "CVUSA"
    lines = []
    for pair in trained.test_set.pairs[:12]:
        names = (f"bingmap/19/{pair.aerial.name}", f"streetview/panos/{pair.ground.name}")
        for name, image in zip(names, (pair.aerial, pair.ground), strict=True):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, root / name)
        lines.append(",".join(names) + "\n")
    (root / "splits").mkdir()
    for split in ("train", "val"):
        (root / "splits" / f"{split}-19zl.csv").write_text("".join(lines))
    return root


@pytest.mark.parametrize(
    ("trained_on", "where", "figure"), [("cvusa", "same", "95.43  98.86  99.34  99.86"), ("cvact", "cross", "44.07")]
)
def test_the_papers_figures_are_listed_below_ours(
    trained: Trained, cvusa: Path, cli: Callable[..., Outcome], trained_on: str, where: str, figure: str
) -> None:
    result = cli("evaluate", trained.checkpoint, "--data", f"cvusa:{cvusa}", "--trained-on", trained_on)
    ours, *papers = result.out.splitlines()[2:]
    assert ours.split()[:4] == [trained_on.upper(), "->", "CVUSA", where]
    assert any(figure in line and "GeoDTR polar + LS" in line for line in papers), result.out
    assert "AAAI 2023" in result.out


def test_no_paper_reports_recall_on_its_training_set(
    trained: Trained, cvusa: Path, cli: Callable[..., Outcome]
) -> None:
    result = cli("evaluate", trained.checkpoint, "--data", f"cvusa:{cvusa}#train", "--trained-on", "cvusa")
    assert "GeoDTR" not in result.out


def test_published_figures_are_per_cent_and_rise_with_k() -> None:
    for row in rows():
        assert row.split in KINDS[row.data].splits
        assert row.trained_on in KINDS
        assert row.source
        assert row.read_in
        figures = [figure for figure in (row.at_1, row.at_5, row.at_10, row.at_1_percent) if figure is not None]
        assert figures == sorted(figures)
        figures += [figure for figure in (row.average_precision, row.hit_rate) if figure is not None]
        assert all(1 < figure <= 100 for figure in figures)
    assert len(set(rows())) == len(rows())


def test_a_dash_is_shown_if_k_includes_every_tile(trained: Trained, cli: Callable[..., Outcome]) -> None:
    result = cli("evaluate", trained.checkpoint, "--data", trained.test_set.name, "--limit", 8)
    cells = result.out.splitlines()[2].split()
    assert cells[-2] == "-"
    assert "-" not in (cells[-4], cells[-3], cells[-1])


def test_a_collapsed_model_is_called_so(trained: Trained, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    model = load_checkpoint(trained.checkpoint).model
    for branch in BRANCHES:
        torch.nn.init.zeros_(next(model.branch(branch).parameters()))
    save_checkpoint(tmp_path / "dead.safetensors", model, "collapsed on purpose")
    result = cli("evaluate", tmp_path / "dead.safetensors", "--data", trained.test_set.name, "--limit", 70)
    assert "descriptors have collapsed" in result.err


def test_unreadable_images_are_reported_and_left_out(
    trained: Trained, pairs: Path, cli: Callable[..., Outcome]
) -> None:
    (pairs / "ground" / "000003.png").write_bytes(b"not an image")
    result = cli("evaluate", trained.checkpoint, "--data", f"pairs:{pairs}")
    assert "000003.png" in result.err
    assert result.out.splitlines()[2].split()[3:5] == ["19", "19"]


def test_pictures_are_drawn(trained: Trained, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    curve, sheet = tmp_path / "curve.png", tmp_path / "sheet.png"
    data = ("--data", trained.test_set.name, "--data", trained.train_set.name)
    result = cli("evaluate", trained.checkpoint, *data, "--limit", 60, "--curve", curve, "--sheet", sheet)
    assert result.code == 0, result.err
    for picture in (curve, sheet):
        _is_a_picture(picture)


def test_the_sheet_shows_misses_with_the_right_tile(trained: Trained) -> None:
    descriptors = embed_pairs(embedders(load_checkpoint(trained.checkpoint).model), trained.test_set.first(100))
    ranking, (counting,) = descriptors.ranking(), countings(descriptors.pair_set)
    sheet = retrieved(descriptors, counting, ranking, "test", 8, 5)
    assert len(sheet) == 8
    assert all(sum(right for *_, right in row.tiles) == 1 for row in sheet)
    assert sum("rank 1 of" not in row.caption for row in sheet) == min(3, np.count_nonzero(ranking.rank))


def test_saliency_and_layouts_are_drawn(trained: Trained, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    one, three = tmp_path / "one.png", tmp_path / "three.png"
    for pairs, out in ((1, one), (3, three)):
        result = cli("visualize", trained.checkpoint, "--data", trained.test_set.name, "--pairs", pairs, "--out", out)
        assert result.code == 0, result.err
        _is_a_picture(out)
    # Two pairs stand side by side, the third below.
    with Image.open(one) as small, Image.open(three) as large:
        assert large.width > 1.9 * small.width
        assert large.height > 1.7 * small.height


def test_an_explanation_matches_the_descriptor(trained: Trained) -> None:
    branch = load_checkpoint(trained.checkpoint).model.branch("ground")
    assert isinstance(branch, LayoutBranch)
    images = torch.rand(2, 3, 32, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        explanation, features = branch.explain(images), branch.backbone(images)
        weighed = torch.einsum("bchw,bkhw->bck", features, explanation.layouts).flatten(1)
        descriptors = branch(images)
    torch.testing.assert_close(torch.nn.functional.normalize(weighed, dim=1), descriptors)
    torch.testing.assert_close(explanation.saliency, features.amax(dim=1))
    assert explanation.layouts.abs().max() <= 1


def test_a_bundle_cannot_be_visualised(trained: Trained, tmp_path: Path, refused: Callable[..., str]) -> None:
    bundle, data = trained.bundles["fp32"].path, trained.test_set.name
    message = refused("visualize", bundle, "--data", data, "--out", tmp_path / "p.png")
    assert "Name the checkpoint" in message


def test_pictures_that_cannot_be_written_are_refused_before_any_work(
    trained: Trained, tmp_path: Path, refused: Callable[..., str]
) -> None:
    taken = tmp_path / "taken.png"
    taken.write_text("precious")
    new = tmp_path / "new.png"
    call = ("evaluate", trained.checkpoint, "--data", trained.test_set.name)
    assert "exists" in refused(*call, "--curve", taken)
    assert "exists" in refused("visualize", *call[1:], "--out", taken)
    assert ".png" in refused(*call, "--sheet", tmp_path / "sheet.jpg")
    assert "two pictures" in refused(*call, "--sheet", new, "--curve", new)


@pytest.mark.parametrize(("spec", "expected"), [("nowhere:x", "one of"), ("pairs", "names no folder")])
def test_a_training_set_that_is_none_is_refused(
    trained: Trained, refused: Callable[..., str], spec: str, expected: str
) -> None:
    assert expected in refused("evaluate", trained.checkpoint, "--data", trained.test_set.name, "--trained-on", spec)


places = st.tuples(st.integers(0, 30).map(float), st.integers(0, 30).map(float))


@settings(deadline=None)  # SciPy takes a second to load
@given(st.lists(st.tuples(places, st.integers(0, 8)), min_size=1, max_size=20))
def test_tiles_within_5_m_are_those_that_measuring_each_finds(rows: list[tuple[tuple[float, float], int]]) -> None:
    pairs = [Pair(Path(f"g{index}"), Path(f"a{tile}"), utm=utm) for index, (utm, tile) in enumerate(rows)]
    pair_set = PairSet("cvact", tuple(pairs), distractors=(Path("z"),))
    matches = pair_set.within(5)
    expected = {
        (query, pair_set.references.index(other.aerial))
        for query, pair in enumerate(pairs)
        for other in pairs
        if _near(pair.utm, other.utm)
    }
    assert set(zip(matches.query.tolist(), matches.reference.tolist(), strict=True)) == expected
    assert len(matches.query) == len(expected)


def test_a_set_with_positions_is_counted_both_ways() -> None:
    utm = ((0.0, 0.0), (3.0, 0.0), (50.0, 0.0))
    pairs = tuple(Pair(Path(f"g{index}"), Path(f"a{index}"), utm=place) for index, place in enumerate(utm))
    aerial = np.eye(3, dtype=np.float32)
    # The first two panoramas find each other's tiles, three metres away.
    descriptors = DescriptorPair(PairSet("cvact", pairs), aerial[[1, 0, 2]], aerial, None, frozenset())
    own, near = countings(descriptors.pair_set)
    assert (own.name, near.name) == (OWN_TILE, ANY_NEAR_TILE)
    assert descriptors.rank(own).rank.tolist() == descriptors.ranking().rank.tolist() == [1, 1, 0]
    assert descriptors.rank(near).rank.tolist() == [0, 0, 0]
    placeless = PairSet("pairs", (Pair(Path("g"), Path("a")),))
    assert [way.name for way in countings(placeless)] == [OWN_TILE]


def test_evaluate_is_the_recall_of_the_ranking(trained: Trained) -> None:
    pair = embedders(load_checkpoint(trained.checkpoint).model)
    some = trained.test_set.first(50)
    descriptors = embed_pairs(pair, some)
    ranking = rank(descriptors.ground, descriptors.aerial)
    assert evaluate(pair, some).at_1 == np.mean(ranking.rank == 0)


def _near(here: tuple[float, float] | None, there: tuple[float, float] | None) -> bool:
    return here is not None and there is not None and float(np.hypot(here[0] - there[0], here[1] - there[1])) <= 5


def _save_trained_on(source: Path, out: Path, spec: str) -> None:
    """The checkpoint `source` with `spec` in its description."""
    from safetensors.torch import load_file, save_file

    info = msgspec.structs.replace(load_checkpoint(source).info, trained_on=spec)
    save_file(load_file(source), out, {"geodtr": msgspec.json.encode(info).decode()})


def _is_a_picture(path: Path) -> None:
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
        assert image.convert("RGB").getcolors(50) is None, "more colours than that"
