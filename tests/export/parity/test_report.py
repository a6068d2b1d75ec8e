"""The report: one self-contained file that starts with the verdict and escapes every name that it shows."""

import base64
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import Outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sample_parity import USUAL, Simulated, simulated_parity, small_world
from tiny_bundle import write_bundle, write_pairs

from geodtr import UserError
from geodtr.export.parity import Gates
from geodtr.export.parity.gates import AS_PROMISED
from geodtr.export.parity.result import Evidence, ParityResult
from geodtr.export.plots.numbers import cosine, digits
from geodtr.export.plots.parity import change_plot, cosine_plot, rank_plot, recall_plot
from geodtr.export.report import write_report
from geodtr.export.report.pictures import changed_queries
from geodtr.export.report.words import headline, sureness
from geodtr.runtime.errors import ConfigError, MissingDependency, OutputExists
from geodtr.runtime.recall import Ranking
from geodtr.training.data.pair_set import Pair, PairSet

Cli = Callable[..., Outcome]
Refused = Callable[..., str]
GOOD = (Simulated("fp32", "fp32", 1e-6), Simulated("int8", "int8", 1e-3))


class Page(HTMLParser):
    """The file taken apart: elements with their attributes, and the text that a reader sees."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.headings: list[tuple[str, str]] = []
        self._open = ""
        self.feed(path.read_text("utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.text += " " if tag in ("td", "th", "li", "p") else ""
        self._open = tag
        if tag in ("h1", "h2", "h3"):
            self.headings.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = "" if tag == self._open else self._open

    def handle_data(self, data: str) -> None:
        if self._open not in ("style", "title"):
            self.text += data
        if self._open == self.headings[-1][0] if self.headings else False:
            self.headings[-1] = (self._open, self.headings[-1][1] + data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def written(result: ParityResult, folder: Path) -> Page:
    write_report(result, folder / "report.html")
    return Page(folder / "report.html")


@pytest.fixture(scope="module")
def pair_set(tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    return small_world(tmp_path_factory.mktemp("world") / "pairs")


@pytest.fixture(scope="module")
def result(pair_set: PairSet) -> ParityResult:
    return simulated_parity(pair_set)


@pytest.fixture(scope="module")
def page(result: ParityResult, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return written(result, tmp_path_factory.mktemp("page"))


def test_the_verdict_comes_first_in_words(pair_set: PairSet, tmp_path: Path) -> None:
    wide, accepting = Gates(max_drop={"int8": 5.0}), Gates(accept_undecided=True)
    for number, (candidates, gates, heading, pairs) in enumerate(
        (
            (
                GOOD,
                wide,
                "Passed: fp32 and int8 lose no more than allowed.",
                "150 pairs against PyTorch decide recall.",
            ),
            (GOOD, AS_PROMISED, "Undecided: too few pairs to decide the recall of int8.", "About 770 would"),
            (GOOD, accepting, "Passed, with the recall of int8 undecided and accepted.", "About 770 would"),
            (USUAL, AS_PROMISED, "Failed: int8 does not pass.", "do not decide the recall of fp16"),
        )
    ):
        folder = tmp_path / str(number)
        page = written(simulated_parity(pair_set, candidates, gates=gates, stages=False, layers=False), folder)
        assert page.headings[0] == ("h1", heading)
        assert pairs in page.text.partition("At a glance")[0]


def test_an_accepted_verdict_is_shown_as_accepted(pair_set: PairSet, tmp_path: Path) -> None:
    page = written(simulated_parity(pair_set, GOOD, gates=Gates(accept_undecided=True)), tmp_path)
    assert "int8 passed, accepted" in page.text
    assert page.text.count("undecided, accepted") >= 3, "each way of searching"
    assert "--accept-undecided" in page.text


def test_an_unread_graph_is_not_called_a_small_sample(result: ParityResult) -> None:
    unread = replace(result.candidates[0].gate, verdict="undecided", certain=True)
    candidate = replace(result.candidates[0], gate=unread)
    undecided = replace(result, figures=replace(result.figures, candidates=(candidate,), verdict="undecided"))
    assert headline(undecided) == f"Undecided: the graph of {candidate.name} could not be read"


def test_no_number_of_pairs_is_enough_where_no_drop_is_allowed(result: ParityResult) -> None:
    message = sureness(replace(result, figures=replace(result.figures, candidates=result.candidates[:1])))
    assert "no number of pairs can prove" in message


def test_the_tables_hold_the_measurements(result: ParityResult, page: Page) -> None:
    for candidate in result.candidates:
        change = candidate.own.at_1
        assert f"{candidate.name} {100 * change.after:.1f}" in page.text
        assert f"{change.lost}, {change.gained}" in page.text
        for check in candidate.gate.checks:
            assert check.words in page.text
        for stage in candidate.stages:
            assert f"{100 * stage.recall.at_1:.1f}" in page.text
    assert result.figures.data_sha256 in page.text
    assert all(version in page.text for version in result.figures.packages.values())
    assert "torn.png (truncated or corrupt)" in page.text


def test_it_needs_nothing_but_itself(page: Page) -> None:
    assert not {"script", "iframe", "object", "embed", "video", "form"} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset", "action"):
                assert (value or "").startswith(("data:", "#")), (tag, value)
    assert not re.search(r"url\((?!#)|@import|//www", page.path.read_text("utf-8"))


def test_the_same_result_is_drawn_in_the_same_bytes_and_no_name_of_a_part_comes_twice(
    result: ParityResult, page: Page, tmp_path: Path
) -> None:
    again = written(result, tmp_path)
    drawn, drawn_again = ([part for part in each.elements if part[0] != "time"] for each in (page, again))
    assert drawn == drawn_again
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) > 20
    assert len(names) == len(set(names))


def test_plots_have_the_colours_of_the_page(result: ParityResult) -> None:
    for drawn in (change_plot(result.candidates), recall_plot(result), cosine_plot(result, "ground")):
        assert {"var(--s1)", "var(--s2)", "var(--faint)"} <= set(re.findall(r"var\(--\w+\)", drawn))
        assert not re.search(r"#[0-9a-f]{6}\b", drawn), "the same on paper and in the dark"


def test_a_name_with_mathematical_or_invisible_characters_is_drawn_unchanged(result: ParityResult) -> None:
    candidate = replace(result.candidates[0], name="a$_b$\x01\n<i>")
    assert "a$_b$\ufffd\ufffd&lt;i&gt;: passed" in change_plot([candidate])


def test_changed_queries_are_pictures_bounded_in_number_and_size(result: ParityResult, page: Page) -> None:
    changed = {
        int(query) for each in result.evidence.candidates for query in result.evidence.changed(each.rankings["own"])
    }
    assert len(changed) > 12, "the sample is too tame for this test"
    assert f"{len(changed)} queries get another tile" in page.text
    assert f"shown are 12 of {len(changed)}" in page.text
    queries = [heading for tag, heading in page.headings if tag == "h3" and heading.startswith("Query ")]
    assert len(queries) == 12
    numbers = [int(re.findall(r"\d+", heading)[0]) - 1 for heading in queries]
    assert set(numbers) <= changed
    for attributes in page.of("img"):
        uri = attributes["src"] or ""
        image = Image.open(BytesIO(base64.b64decode(uri.partition("base64,")[2])))
        assert image.width <= 640
        assert image.height <= 320
        assert attributes["alt"]
    assert page.path.stat().st_size < 2e6


def test_another_right_tile_in_first_place_is_a_changed_answer(result: ParityResult) -> None:
    """Of several right tiles, as drone data sets have them."""
    evidence = result.evidence
    pairs = list(evidence.pair_set.pairs)
    pairs[0] = replace(pairs[0], positives=(pairs[1].aerial,))
    pair_set = replace(evidence.pair_set, pairs=tuple(pairs))
    rank, right = np.zeros_like(evidence.reference.rank), pair_set.tiles
    before = replace(evidence.reference, rank=rank, right=right)
    after = replace(before, right=np.where(np.arange(len(right)) == 0, right[1], right))
    changed = Evidence(pair_set, before, (replace(evidence.candidates[0], rankings={"own": after}),))
    figures = replace(result.figures, candidates=result.figures.candidates[:1])
    (query,), count = changed_queries(ParityResult(figures, changed), 9)
    assert (query.number, count) == (1, 1)
    assert [(answer.tile.name, answer.right) for answer in query.answers] == [
        (pairs[0].aerial.name, True),
        (pairs[1].aerial.name, True),
    ]
    assert [move.fate for move in query.moves] == ["still right"]


def test_hits_that_went_are_shown_before_anything_else(page: Page) -> None:
    fates = re.findall(r"int8: (lost|gained|still wrong)\.", page.text)
    assert fates == sorted(fates, key=("lost", "gained", "still wrong").index)
    assert fates[0] == "lost"


def test_a_missing_picture_is_replaced_by_the_reason(pair_set: PairSet, tmp_path: Path) -> None:
    gone = [Pair(tmp_path / "gone" / pair.ground.name, pair.aerial) for pair in pair_set.pairs]
    page = written(simulated_parity(PairSet("pairs:gone", tuple(gone))), tmp_path)
    assert "does not exist" in page.text


def test_names_are_shown_and_never_obeyed(pair_set: PairSet, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>&\"'{{7*7}}</script><script>alert(2)</script>"
    pairs = tuple(
        Pair(tmp_path / (evil.replace("/", "") + str(number)), pair.aerial)
        for number, pair in enumerate(pair_set.pairs)
    )
    page = written(simulated_parity(PairSet(evil, pairs), (Simulated(evil, "int8", 0.06, runs_by=evil),)), tmp_path)
    assert evil in page.text
    assert not page.of("script")
    assert all(set(attributes) <= {"src", "alt", "width", "height"} for attributes in page.of("img"))


@pytest.mark.parametrize("pairs", [2, 3, 30])
def test_few_pairs_one_candidate_and_no_stages_are_a_report_too(pair_set: PairSet, tmp_path: Path, pairs: int) -> None:
    sample = simulated_parity(pair_set.first(pairs), USUAL[:1], stages=False, layers=False)
    page = written(sample, tmp_path)
    assert "Which step to blame" not in page.text
    assert "None: every candidate puts the same tile first" in page.text


def test_an_engine_that_gives_no_numbers_is_reported(pair_set: PairSet, tmp_path: Path) -> None:
    page = written(simulated_parity(pair_set, broken_images=5), tmp_path)
    assert "5 descriptors hold NaN" in page.text
    assert "nan" not in page.text.replace("finance", "")


def test_many_candidates_are_summarised_by_their_number(pair_set: PairSet, tmp_path: Path) -> None:
    many = [Simulated(f"engine-{number}", "int8", 0.2) for number in range(9)]
    page = written(simulated_parity(pair_set, many, stages=False, layers=False), tmp_path)
    assert page.headings[0][1] == "Failed: 9 candidates do not pass."


def test_an_output_that_cannot_be_written_is_refused_and_nothing_overwritten(
    result: ParityResult, tmp_path: Path
) -> None:
    taken = tmp_path / "taken.html"
    taken.write_text("mine")
    with pytest.raises(OutputExists, match="Name another"):
        write_report(result, taken)
    assert taken.read_text() == "mine"
    with pytest.raises(ConfigError, match=r"does not end in \.html"):
        write_report(result, tmp_path / "report.pdf")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(result, taken / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.html"]


def test_an_uninformative_recall_is_reported_as_such(result: ParityResult, tmp_path: Path) -> None:
    tied = replace(result.figures.reference, recall=replace(result.figures.reference.recall, tied=0.2, alike=0.995))
    page = written(replace(result, figures=replace(result.figures, reference=tied)), tmp_path)
    assert "PyTorch: the descriptors have collapsed" in page.text
    assert "20.0 % of the queries have another tile exactly as close" in page.text


def test_the_command_writes_the_report_and_checks_its_path_before_any_work(
    cli: Cli, refused: Refused, tmp_path: Path
) -> None:
    reference, engine = write_bundle(tmp_path / "reference"), write_bundle(tmp_path / "engine")
    data = f"pairs:{write_pairs(tmp_path / 'pairs', 12)}"
    command = ("parity", reference, engine, "--data", data, "--report")
    assert "does not end in .html" in refused(*command, tmp_path / "report.pdf")
    assert "cannot be written" in refused(*command, engine / "manifest.json" / "report.html")
    report = tmp_path / "new" / "report.html"
    done = cli(*command, report)
    assert done.code == 0, done.err
    assert Page(report).headings[0] == ("h1", "Passed: engine loses no more than allowed.")
    assert "exists. Name another" in refused(*command, report)


def test_without_jinja2_the_error_names_the_extra(
    result: ParityResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependency, match="pip install"):
        write_report(result, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_report_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    command = ("parity", tmp_path / "no-such-reference", tmp_path / "no-such-engine", "--data", "pairs:gone")
    assert "[plots]" in refused(*command, "--report", tmp_path / "report.html")


@settings(deadline=None, max_examples=25)
@given(
    ranks=st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 40_000)), min_size=1, max_size=60),
)
def test_every_query_is_in_the_scatter_and_every_mark_on_the_page(ranks: list[tuple[int, int]]) -> None:
    before, after = (_ranking(column) for column in zip(*ranks, strict=True))
    drawing = ElementTree.fromstring(rank_plot(before, after, "int8"))
    label = drawing.get("aria-label") or ""
    counts = [int(number.replace(",", "")) for number in re.findall(r"(?:for|for the same for) ([\d,]+)", label)]
    assert sum(counts) == len(ranks)
    width, height = map(float, (drawing.get("viewBox") or "").split()[2:])
    assert width == 360
    shapes = {shape for part in drawing.iter("defs") for shape in part}
    dots = [each for each in drawing.iter() if "stroke: var(--paper)" in each.get("style", "") and each not in shapes]
    assert 1 <= len(dots) <= len(ranks)
    for dot in dots:
        x, y = (dot.get("x"), dot.get("y")) if dot.tag == "use" else dot.get("d", "").split()[1:3]
        assert 0 <= float(x or "nan") <= width
        assert 0 <= float(y or "nan") <= height


def _ranking(ranks: tuple[int, ...]) -> Ranking:
    rank = np.array(ranks, np.int64)
    return Ranking(rank, np.zeros_like(rank), np.zeros(len(rank), np.float32), rank, rank, 50_000, 0.0)


@given(value=st.floats(-1, 1))
def test_no_cosine_below_1_is_written_as_1(value: float) -> None:
    message = cosine(value)
    assert message == "1" or float(message.replace("−", "-")) < 1
    assert (message == "1") == (value > 1 - 1e-8)
    assert float(message.replace("−", "-")) == pytest.approx(value, abs=1e-5)


@given(value=st.floats())
def test_every_figure_can_be_written(value: float) -> None:
    assert digits(value)
    assert cosine(min(value, 1.0))
    assert "-" not in digits(value)
