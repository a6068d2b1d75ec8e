"""The figures of a parity run match the descriptors, its verdicts follow its gates, and bad input is refused."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trees
from checkout import ROOT
from conftest import Outcome, Trained
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import write_bundle, write_pairs

from geodtr import UserError
from geodtr.export.model import distinct_names, open_model
from geodtr.export.parity import Gates, ParityResult, compare, run
from geodtr.export.parity.measures import audit
from geodtr.export.parity.measures.pairings import change, ranking
from geodtr.export.parity.result import first_tiles
from geodtr.runtime.embed.pipeline import embed_files
from geodtr.runtime.errors import ConfigError, DataError
from geodtr.runtime.manifest import Manifest, read_manifest
from geodtr.runtime.names import BRANCHES
from geodtr.runtime.recall import recall
from geodtr.training.data.counting import HIT_RATE, countings
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.data.readers.pairs_csv import read_pairs
from geodtr.training.evaluation.evaluate import DescriptorPair, embed_pairs

DOCS = ROOT / "docs" / "parity.md"
PAIRS = 200
Cli = Callable[..., Outcome]


@pytest.fixture(scope="module")
def result(trained: Trained) -> ParityResult:
    candidates = [open_model(trained.bundles[precision].path) for precision in ("fp32", "int8")]
    return compare(open_model(trained.checkpoint), candidates, trained.test_set.first(PAIRS))


def test_figures_match_the_models(trained: Trained, result: ParityResult) -> None:
    pairs = trained.test_set.first(PAIRS)
    expected = embed_pairs(open_model(trained.checkpoint).embedders, pairs)
    got = embed_pairs(trained.bundles["int8"].embedders(), pairs)
    assert result.figures.reference.recall == recall(expected.ranking())
    int8 = result.candidates[1]
    assert int8.own.recall == recall(got.ranking())
    for branch, found in zip(BRANCHES, int8.branches, strict=True):
        cosine = np.sum(expected[branch].astype(np.float64) * got[branch], axis=1)
        assert found.images == len(cosine)
        assert found.mean_cosine == pytest.approx(cosine.mean(), abs=1e-6)
        assert found.smallest_cosine == pytest.approx(cosine.min(), abs=1e-6)
        assert found.low_cosine == pytest.approx(np.quantile(cosine, 0.01), abs=1e-6)
    assert result.figures.data_sha256 == pairs.fingerprint()


def test_mixed_searches_use_the_other_models_gallery(trained: Trained, result: ParityResult) -> None:
    reference, engine = open_model(trained.checkpoint).embedders, trained.bundles["int8"].embedders()
    pairs = trained.test_set.first(PAIRS)
    rows = {
        "queries": (embed_files(engine.ground, pairs.paths("ground")), embed_files(reference.aerial, pairs.references)),
        "gallery": (embed_files(reference.ground, pairs.paths("ground")), embed_files(engine.aerial, pairs.references)),
    }
    for pairing in result.candidates[1].pairings[1:]:
        assert pairing.recall == recall(ranking(pairs, *rows[pairing.name]))


def test_the_figures_follow_from_the_evidence(result: ParityResult) -> None:
    evidence = result.evidence
    assert evidence.pair_set.tiles.shape == evidence.reference.rank.shape
    for candidate, rows in zip(result.candidates, evidence.candidates, strict=True):
        for pairing in candidate.pairings:
            after = rows.rankings[pairing.name]
            assert pairing.moved == np.count_nonzero(after.rank != evidence.reference.rank)
            assert pairing.other_answer == len(evidence.changed(after))
            lost = (evidence.reference.rank == 0) & (after.rank > 0)
            gained = (evidence.reference.rank > 0) & (after.rank == 0)
            assert (pairing.at_1.lost, pairing.at_1.gained) == (lost.sum(), gained.sum())
            assert pairing.at_1.low <= pairing.at_1.change <= pairing.at_1.high
            assert pairing.median_margin == pytest.approx(float(np.median(after.margin)))
            right = first_tiles(after) == evidence.pair_set.tiles
            np.testing.assert_array_equal(right, after.rank == 0)
        for branch, found_branch in zip(BRANCHES, candidate.branches, strict=True):
            assert rows.cosine[branch].min() == pytest.approx(found_branch.smallest_cosine, abs=1e-6)
        assert list(rows.stages) == [stage.name for stage in candidate.stages]


def test_stages_lead_from_the_reference_to_the_engine(result: ParityResult) -> None:
    fp32, int8 = result.candidates
    # The typed file of a float32 engine is the exported one: no step of its own.
    assert [stage.name for stage in fp32.stages] == ["onnx", "engine"]
    assert [stage.name for stage in int8.stages] == ["onnx", "typed", "engine"]
    for candidate in result.candidates:
        assert candidate.stages[-1].recall == candidate.own.recall
        assert sum(stage.step.lost - stage.step.gained for stage in candidate.stages) == (
            candidate.own.at_1.lost - candidate.own.at_1.gained
        )
    exported, typed, engine = int8.stages
    assert min(each.smallest_cosine for each in exported.from_previous) > 0.99999
    assert min(each.smallest_cosine for each in engine.from_previous) > 0.999
    assert min(each.smallest_cosine for each in typed.from_previous) < 0.9999
    flips = [each.argmax_flips for each in typed.from_previous]
    assert all(share is not None and 0 < share < 0.2 for share in flips)


def test_the_audit_counts_operators_by_the_precision_they_have(trained: Trained, result: ParityResult) -> None:
    fp32, int8 = result.candidates
    entry = trained.bundles["int8"].manifest.quantisation
    assert entry is not None
    for branch in fp32.audit:
        assert {precision for counts in branch.operators.values() for precision in counts} == {"fp32"}
    quantised = sum(counts.get("int8", 0) for branch in int8.audit for counts in branch.operators.values())
    assert quantised == entry.operators - len(entry.kept_float)
    assert not any(branch.faults for candidate in result.candidates for branch in candidate.audit)


def test_an_unreadable_graph_is_reported_and_leaves_a_strict_verdict_undecided(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "find_spec", lambda _name: None)
    reference, candidate = open_model(trained.onnx.path), open_model(trained.bundles["fp32"].path)
    pairs = trained.test_set.first(40)
    relaxed = compare(reference, [candidate], pairs, stages=False)
    assert relaxed.passed
    assert any("was not looked into" in check.words for check in relaxed.candidates[0].gate.checks)
    strict = compare(reference, [candidate], pairs, stages=False, gates=Gates(require_certain=True))
    assert strict.verdict == "undecided"


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        ((), 3, "UNDECIDED"),
        (("--max-drop", "int8=20"), 0, "60 pairs decide recall"),
        (("--max-drop", "int8=20", "--require-certain"), 0, "passed"),
        (("--accept-undecided", "--max-drop", "int8=5"), 0, "accepted"),
        (("--min-cosine", "int8=0.99999"), 1, "FAILED"),
    ],
)
def test_the_exit_code_is_the_verdict(
    trained: Trained, tmp_path: Path, cli: Cli, options: tuple[str, ...], code: int, word: str
) -> None:
    bundle = shutil.copytree(trained.bundles["int8"].path, tmp_path / "int8")
    command = ("parity", trained.onnx.path, bundle, "--data", trained.test_set.name, "--limit", 60, "--no-stages")
    result = cli(*command, *options)
    assert result.code == code, result
    assert word in result.out
    (entry,) = read_manifest(bundle).parity
    assert entry.verdict == {0: "passed", 1: "failed", 3: "undecided"}[code]
    assert entry.pairs == 60
    assert entry.reasons
    assert entry.accepted == ("--accept-undecided" in options)
    if code:
        assert "  Next: " in result.out.splitlines()[-1]
        assert "geodtr-export " in entry.reasons[-1]
    shown = cli("inspect", bundle).out
    assert word in shown or word == "passed"
    assert all(reason in shown for reason in entry.reasons)


def test_tables_fit_a_terminal(trained: Trained, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = shutil.copytree(trained.bundles["int8"].path, tmp_path / "int8")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # a pipe has no width
    command = ("parity", trained.onnx.path, bundle, "--data", trained.test_set.name, "--limit", 40, "--layers")
    tables = [line for line in cli(*command).out.splitlines() if line.startswith(("int8  ", "ground/", "aerial/"))]
    assert len(tables) > 5
    assert all(len(line) <= 80 and "…" not in line for line in tables)


@pytest.mark.parametrize("text", ["int8", "int4=0.1", "int8=x", "int8=-1", "int8=101", "int8=nan"])
def test_an_allowed_drop_that_is_none_is_refused(trained: Trained, refused: Callable[..., str], text: str) -> None:
    bundle = trained.bundles["int8"].path
    message = refused("parity", trained.onnx.path, bundle, "--data", trained.test_set.name, "--max-drop", text)
    assert repr(text) in message
    assert "fp32, fp16, int8, fp8, auto" in message


def test_impossible_comparisons_are_refused(
    trained: Trained, pairs: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    bundle, data = trained.bundles["fp32"].path, trained.test_set.name
    assert "at least two" in refused("parity", trained.onnx.path, bundle, "--data", data, "--limit", 1)
    assert "is not a bundle" in refused("parity", trained.onnx.path, trained.checkpoint, "--data", data)
    assert "neither a bundle" in refused("parity", tmp_path / "nothing", bundle, "--data", data)
    empty = shutil.copytree(trained.checkpoint.parent, tmp_path / "run")
    for weights in empty.glob("*.safetensors"):
        weights.unlink()
    assert "last.safetensors is not a checkpoint file" in refused("parity", empty, bundle, "--data", data)
    stripped = shutil.copytree(trained.onnx.path, tmp_path / "onnx")
    (stripped / "ground.onnx").unlink()
    assert "ground.onnx is missing" in refused("parity", stripped, bundle, "--data", data)
    back = f"university:{trees.university(tmp_path / 'u')}#s2d"
    message = refused("parity", trained.onnx.path, bundle, "--data", back)
    assert f"{back} looks up tiles among ground images" in message
    assert "from drone to satellite (d2s)" in message
    (pairs / "pairs.csv").write_text("ground,aerial\n")
    assert "no pairs" in refused("parity", trained.onnx.path, bundle, "--data", f"pairs:{pairs}")


def test_layers_without_a_float32_graph_are_refused(trained: Trained, refused: Callable[..., str]) -> None:
    reference, bundle = trained.bundles["int8"].path, trained.bundles["fp16"].path
    command = ("parity", reference, bundle, "--data", trained.test_set.name, "--layers")
    assert "no float32 graph" in refused(*command)


def test_a_bundle_that_cannot_be_written_is_judged(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, candidate = write_bundle(tmp_path / "a"), write_bundle(tmp_path / "b")
    write_pairs(tmp_path / "pairs", 40)

    def refuse(bundle: Path, manifest: Manifest) -> None:
        del manifest
        raise UserError(f"{bundle} cannot be written (Read-only file system).")

    # By its name, the package has a function in the place of the module.
    monkeypatch.setattr(import_module("geodtr.export.parity.record"), "write_manifest", refuse)
    result = cli("parity", reference, candidate, "--data", f"pairs:{tmp_path / 'pairs'}", "--no-stages")
    assert result.code in (0, 3)
    assert "R@1" in result.out
    assert f"not recorded: {candidate} cannot be written" in result.err


def test_one_readable_pair_is_too_few(trained: Trained, pairs: Path, refused: Callable[..., str]) -> None:
    for image in sorted((pairs / "ground").iterdir())[1:]:
        image.write_bytes(b"no image")
    message = refused("parity", trained.onnx.path, trained.bundles["fp32"].path, "--data", f"pairs:{pairs}")
    assert "at least two" in message
    assert "data check" in message


def test_pairs_of_one_tile_are_no_choice(trained: Trained, pairs: Path, refused: Callable[..., str]) -> None:
    grounds = sorted((pairs / "ground").iterdir())
    rows = [f"ground/{ground.name},aerial/{grounds[0].name}\n" for ground in grounds[:2]]
    (pairs / "pairs.csv").write_text("".join(["ground,aerial\n", *rows]))
    message = refused("parity", trained.onnx.path, trained.bundles["fp32"].path, "--data", f"pairs:{pairs}")
    assert "share the tile" in message


def test_an_image_that_only_the_candidate_cannot_read_is_named(
    trained: Trained, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = sorted((pairs / "aerial").iterdir())[3]

    def begin_and_lose(*args: Any, **options: Any) -> Any:
        begun = run.begin(*args, **options)
        lost.unlink()
        return begun

    monkeypatch.setattr("geodtr.export.parity.comparison.begin", begin_and_lose)
    models = open_model(trained.onnx.path), [open_model(trained.bundles["fp32"].path)]
    with pytest.raises(DataError, match=f"{lost.name} could be read for onnx and not for fp32"):
        compare(*models, read_pairs(pairs), stages=False)


def test_bundles_of_the_same_name_are_distinguished(trained: Trained, tmp_path: Path) -> None:
    for folder in ("old/bundles", "new/bundles"):
        shutil.copytree(trained.bundles["int8"].path, tmp_path / folder / "int8")
    paths = [trained.onnx.path, tmp_path / "old" / "bundles" / "int8", tmp_path / "new" / "bundles" / "int8"]
    assert distinct_names([open_model(path) for path in paths]) == ["onnx", "old/bundles/int8", "new/bundles/int8"]


def test_recall_is_counted_as_evaluation_counts_it() -> None:
    """Four maps; on each, every image has two right tiles and a semi-positive."""
    generator = np.random.default_rng(0)
    ground, aerial = (generator.normal(size=(rows, 8)).astype(np.float32) for rows in (40, 120))
    ground, aerial = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (ground, aerial))
    pairs = tuple(Pair(Path(f"g{row}"), Path(f"a{row}"), positives=(Path(f"b{row}"),)) for row in range(40))
    maps = tuple(frozenset(Path(f"{kind}{row}") for kind in "ab" for row in range(n, 40, 4)) for n in range(4))
    there = PairSet("made", pairs, maps=maps)
    descriptors = DescriptorPair(there, ground, aerial[:80], None, frozenset())
    np.testing.assert_array_equal(ranking(there, ground, aerial[:80]).rank, descriptors.ranking().rank)
    assert (descriptors.ranking().rank < ranking(replace(there, maps=()), ground, aerial[:80]).rank).any()
    near = tuple(replace(pair, semi_positives=(Path(f"c{row}"),)) for row, pair in enumerate(pairs))
    beside = tuple(tiles | {Path(f"c{row}") for row in range(n, 40, 4)} for n, tiles in enumerate(maps))
    there = PairSet("made", near, maps=beside)
    descriptors = DescriptorPair(there, ground, aerial, None, frozenset())
    hit_rate = next(way for way in countings(there) if way.name == HIT_RATE)
    np.testing.assert_array_equal(ranking(there, ground, aerial).rank, descriptors.rank(hit_rate).rank)


@settings(deadline=None, max_examples=50)
@given(
    broken=st.sets(st.tuples(st.booleans(), st.integers(0, 19)), max_size=10), value=st.sampled_from([np.nan, np.inf])
)
def test_a_descriptor_that_is_no_number_finds_nothing_and_is_not_found(
    broken: set[tuple[bool, int]], value: float
) -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(20, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pair_set = PairSet("made", tuple(Pair(Path(f"g{row}"), Path(f"a{row}")) for row in range(20)))
    queries, gallery = rows.copy(), rows.copy()
    for is_query, row in broken:
        (queries if is_query else gallery)[row, 3] = value
    ranked = ranking(pair_set, queries, gallery)
    hit = set(np.flatnonzero(ranked.rank == 0).tolist())
    assert hit == set(range(20)) - {row for _, row in broken}
    r_at_1 = change("R@1", 1, ranking(pair_set, rows, rows), ranked)
    assert (r_at_1.lost, r_at_1.gained) == (20 - len(hit), 0)


def test_the_example_in_the_documentation_runs(
    trained: Trained,
    many_pairs: PairSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)[:1]
    shutil.copytree(trained.checkpoint.parent, tmp_path / "run")
    shutil.copytree(trained.bundles["int8"].path, tmp_path / "engine")
    (tmp_path / "test").symlink_to(many_pairs.pairs[0].ground.parents[1])
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(DOCS), "exec"), {})
    assert "passed" in capsys.readouterr().out
    assert json.loads((tmp_path / "parity.json").read_text())["pairs"] == len(many_pairs)
    assert read_manifest(Path("engine")).parity


def test_without_a_candidate_nothing_passes(trained: Trained) -> None:
    with pytest.raises(ConfigError, match="candidates is empty; name at least one bundle"):
        compare(open_model(trained.checkpoint), [], trained.test_set)
