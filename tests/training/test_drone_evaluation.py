"""What is done with a data set works with drones: measured both ways, prepared, shown beside papers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trees
from conftest import Outcome, Trained

from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.spec import Correlation
from geodtr.training.data.pair_set import PairSet
from geodtr.training.data.prepare import prepare
from geodtr.training.data.readers.prepared import read_prepared
from geodtr.training.data.spec import read_test_set
from geodtr.training.evaluation.evaluate import DescriptorPair, embed_pairs
from geodtr.training.models.checkpoint import load_checkpoint
from geodtr.training.models.embedder import embedders

Cli = Callable[..., Outcome]


@pytest.mark.parametrize(("split", "queries", "references"), [("d2s", 6, 3), ("s2d", 2, 9)])
def test_a_model_is_measured_from_drone_to_satellite_and_back(
    trained: Trained, tmp_path: Path, cli: Cli, split: str, queries: int, references: int
) -> None:
    spec = f"university:{trees.university(tmp_path / 'u')}#{split}"
    sheet = tmp_path / "sheet.png"
    call = ("evaluate", trained.checkpoint, "--data", spec, "--trained-on", "university")
    result = cli(*call, "--sheet", sheet)
    assert result.code == 0, result.err
    head, ours, *papers = result.out.splitlines()[1:]
    assert head.split()[-1] == "AP"
    assert f"University-1652 -> University-1652 {split}" in ours
    assert ours.split()[5:7] == [str(queries), str(references)]
    assert any("Sample4Geo" in line and ("92.65" if split == "d2s" else "91.39") in line for line in papers)
    assert sheet.stat().st_size > 1000
    (only,) = json.loads(cli(*call, "--json").out)["results"]
    assert (only["kind"], only["split"]) == ("university", split)
    (precision,) = only["average_precision"].values()
    assert 0 < precision["trapezoids"] <= precision["steps"] <= 1


def test_results_stand_among_the_papers_rows(trained: Trained, tmp_path: Path, cli: Cli) -> None:
    spec = f"university:{trees.university(tmp_path / 'u')}"
    results = tmp_path / "mine.json"
    results.write_text(cli("evaluate", trained.checkpoint, "--data", spec, "--json").out)
    shown = cli("published", "--results", results)
    assert shown.code == 0, shown.err
    title, head, *rows = shown.out.splitlines()
    assert title == "university#d2s"
    # Of three tiles, R@5 and R@10 say nothing; papers report none.
    assert head.split() == ["model", "trained", "on", "R@1", "R@1%", "AP", "counted", "source"]
    (own,) = [row for row in rows if trained.checkpoint.name in row]
    assert str(results) in own
    assert any("Sample4Geo" in row and "ICCV 2023" in row for row in rows)
    # Results on other data are not in the tables that are asked for.
    elsewhere = cli("published", "cvact#test", "--results", results)
    assert trained.checkpoint.name not in elsewhere.out
    assert "--results has figures on university#d2s as well" in elsewhere.err
    document = json.loads(cli("published", "--results", results, "--json").out)
    assert {row["split"] for row in document["published"]} == {"d2s"}
    assert all(row["read_in"] for row in document["published"])
    (row,) = document["results"]
    assert row["model"] == trained.checkpoint.name
    assert row["average_precision"] is not None
    assert row["protocol"] == "own tile, 6 of 37,855 queries, 3 of 951 references"
    assert (row["at_5"], row["at_10"]) == (None, None)  # of three tiles
    seen = json.loads(results.read_text())
    seen["views"] |= {"field_of_view": 90.0, "heading": "unknown"}
    seen["results"][0]["recall"]["own tile"] |= {"queries": 37855, "references": 951}
    results.write_text(json.dumps(seen))
    (row,) = json.loads(cli("published", "--results", results, "--json").out)["results"]
    assert row["protocol"] == "own tile, 90° of view, unknown heading"
    assert 0 <= row["at_5"] <= row["at_10"] <= 100
    seen["results"][0]["recall"]["own tile"] |= {"at_1": 97}
    results.write_text(json.dumps(seen))
    assert "recall is a share from 0 to 1; it holds 97" in cli("published", "--results", results).err


def test_distances_are_shown_where_papers_report_them(trained: Trained, tmp_path: Path, cli: Cli) -> None:
    call = ("evaluate", trained.checkpoint, "--data", f"denseuav:{trees.denseuav(tmp_path / 'd')}")
    assert "DenseUAV d2s: SDM@1 " in cli(*call).out
    results = tmp_path / "mine.json"
    results.write_text(cli(*call, "--json").out)
    (row,) = json.loads(cli("published", "--results", results, "--json").out)["results"]
    assert 0 <= row["sdm_at_1"] <= 100
    assert row["metres_at_1"] is None
    assert "86.24" in cli("published", "--results", results).out


def test_the_tables_of_all_data_sets_are_shown(cli: Cli) -> None:
    shown = cli("published").out
    for line in ("cvusa#val", "vigor#cross-test", "sues#s2d-300", "gta#cross-d2s"):
        assert line in shown.splitlines()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("cvsua",), "there are cvusa, cvact"),
        (("cvact#train",), "there are val, test"),
        (("--results", "{}"), "evaluate MODEL --data SPEC --json"),
        (("--results", "{}/none.json"), "it cannot be read: No such file or directory"),
    ],
)
def test_what_no_paper_reports_is_refused(
    tmp_path: Path, refused: Callable[..., str], arguments: tuple[str, ...], named: str
) -> None:
    assert named in refused("published", *(argument.format(tmp_path) for argument in arguments))


def test_a_correlation_is_not_asked_from_tiles(tmp_path: Path) -> None:
    back = read_test_set(f"university:{trees.university(tmp_path)}#s2d")
    scorer = Correlation(columns=4, seen=2, values=2, field_of_view=180)
    descriptors = DescriptorPair(back, np.zeros((9, 4), np.float32), np.zeros((3, 8), np.float32), scorer, frozenset())
    with pytest.raises(ConfigError, match="Choose a split from drone to satellite"):
        descriptors.ranking()


def _prepared(trained: Trained, pair_set: PairSet, out: Path) -> PairSet:
    specs = load_checkpoint(trained.checkpoint).model.specs
    prepare(out, pair_set, {branch: spec.preprocessing for branch, spec in specs.items()}, jobs=1)
    return read_prepared(out)


def test_a_prepared_set_is_counted_as_its_source(trained: Trained, tmp_path: Path) -> None:
    test = {"03_0001.JPG": {"03_1.png": 0.5, "03_2.png": 0.4}, "04_0001.JPG": {"04_1.png": 0.5}}
    lists = {"same-area-drone2sate-test.json": test}
    maps = trees.overlaps(tmp_path / "v", lists, ("03_1.png", "03_2.png", "04_1.png", "04_2.png"))
    model = embedders(load_checkpoint(trained.checkpoint).model)
    for spec in (f"denseuav:{trees.denseuav(tmp_path / 'd')}#s2d", f"visloc:{maps}#same-d2s"):
        source = read_test_set(spec)
        ready = _prepared(trained, source, tmp_path / spec.partition(":")[0])
        assert ready.source == spec
        assert len(ready.tile_queries) == len(source.tile_queries)
        before, after = embed_pairs(model, source).ranking(), embed_pairs(model, ready).ranking()
        np.testing.assert_array_equal(before.rank, after.rank)
        assert replace(ready, maps=(), tile_queries=()).fingerprint() != ready.fingerprint()
    path = tmp_path / "visloc/prepared.json"
    document = json.loads(path.read_text())
    assert document["schema"] == 2
    one, two = document["maps"]
    for wrong, times in (([one[1:], two], 0), ([one, [*two, one[0]]], 2)):
        path.write_text(json.dumps(document | {"maps": wrong}))
        with pytest.raises(DataError, match=f"is on {times} of its maps"):
            read_prepared(path.parent)
    del document["maps"]
    for pair in document["pairs"]:
        pair.pop("positives", None)
    path.write_text(json.dumps(document | {"schema": 1}))
    assert not read_prepared(path.parent).maps
