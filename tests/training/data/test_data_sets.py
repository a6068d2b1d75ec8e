"""Data sets are read as they are released: complete, in order, what is missing named, what is garbage refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trees
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import IDS, TILES, UTM

from geodtr.runtime.errors import DataError
from geodtr.training.data.pair_set import Pair, PairSet
from geodtr.training.data.readers.pairs_csv import write_pairs
from geodtr.training.data.spec import KINDS, read_test_set


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_lists_written_on_other_systems_are_read(tmp_path: Path, newline: str, start: str) -> None:
    root = trees.cvusa(tmp_path / "räume 東京", {"val-19zl.csv": [1, 2]}, newline, start)
    assert len(read_test_set(f"cvusa:{root}")) == 2
    cvact = trees.vigor(tmp_path / "v", [("Chicago", "ä,1,2,.jpg", TILES[:4])])
    for path in cvact.rglob("*.txt"):
        path.write_bytes((start + path.read_text().replace("\n", newline)).encode())
    assert len(read_test_set(f"vigor:{cvact}")) == 1


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"ground;aerial\na.png;b.png\n", "by semicolons. Save it with commas"),
        ("ground,aerial\na.png,b.png\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
    ],
)
def test_a_table_of_a_spreadsheet_names_how_to_save_it(tmp_path: Path, content: bytes, named: str) -> None:
    (tmp_path / "pairs.csv").write_bytes(content)
    with pytest.raises(DataError, match=named):
        read_test_set(f"pairs:{tmp_path}")


def test_references_within_metres_match_a_plain_count(tmp_path: Path) -> None:
    root = trees.cvact(tmp_path, IDS, UTM, test=[1, 2, 3, 4])
    near = read_test_set(f"cvact:{root}#test").within(5.0)
    # 3-4-5: exactly 5 m count; the third is 5.4 m from the first.
    matches = list(zip(near.query.tolist(), near.reference.tolist(), strict=True))
    assert matches == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 3)]


@given(
    places=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=30),
    tiles=st.integers(1, 40),
    metres=st.integers(0, 30),
)
@settings(deadline=None)
def test_within_agrees_with_every_distance(places: list[tuple[int, int]], tiles: int, metres: int) -> None:
    pairs = tuple(
        Pair(Path(f"g{n}"), Path(f"a{n % tiles}"), utm=(float(x), float(y))) for n, (x, y) in enumerate(places)
    )
    pair_set = PairSet("set", pairs)
    near = pair_set.within(metres)
    matches = set(zip(near.query.tolist(), near.reference.tolist(), strict=True))
    expected = {
        (query, int(tile))
        for query, (x, y) in enumerate(places)
        for (u, v), tile in zip(places, pair_set.tiles, strict=True)
        if (x - u) ** 2 + (y - v) ** 2 <= metres**2
    }
    assert matches == expected
    assert len(matches) == len(near.query)
    assert (np.diff(near.query) >= 0).all()
    assert set(zip(*map(np.ndarray.tolist, pair_set.truth.between(0, len(places))), strict=True)) <= matches


def test_within_needs_positions_in_metres(tmp_path: Path) -> None:
    root = trees.cvusa(tmp_path, {"val-19zl.csv": [1]})
    with pytest.raises(DataError, match="no positions in metres for 1 pairs"):
        read_test_set(f"cvusa:{root}").within(5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].splits])
def test_an_unknown_split_lists_those_that_are_there(tmp_path: Path, refused: Callable[..., str], kind: str) -> None:
    assert ", ".join(KINDS[kind].splits) in refused("data", "check", f"{kind}:{tmp_path}#dev")


LISTED = {"same-area-drone2sate-test.json": {"1.png": {"4_0_1_1.png": 0.5}}}
OF_KIND: dict[str, Callable[[Path], Path]] = {
    "cvusa": lambda root: trees.cvusa(root, {"val-19zl.csv": [1]}),
    "cvact": lambda root: trees.cvact(root, IDS, UTM, val=[1]),
    "vigor": lambda root: trees.vigor(root, [("Chicago", "a.jpg", TILES[:4])]),
    "university": lambda root: trees.university(root, train=("0001",), test=("0003", "0004")),
    "sues": lambda root: trees.sues(root, ["150"]),
    "denseuav": lambda root: trees.denseuav(root, test=("000002",)),
    "gta": lambda root: trees.overlaps(root, LISTED, ("4_0_1_1.png",)),
    "visloc": lambda root: trees.overlaps(
        root, {"same-area-drone2sate-test.json": {"03_1.JPG": {"03_4_1_1.png": 0.5}}}, ("03_4_1_1.png",)
    ),
    "pairs": lambda root: write_pairs(trees.write_image(root / "a.png", 4, 4).parent, []).parent,
}


@pytest.mark.parametrize("own", OF_KIND)
def test_a_folder_of_another_kind_is_refused_with_the_spec_that_reads_it(
    tmp_path: Path, refused: Callable[..., str], own: str
) -> None:
    assert {*OF_KIND, "prepared"} == set(KINDS)
    root = OF_KIND[own](tmp_path / "set")
    for kind in set(KINDS) - {own}:
        with pytest.raises(DataError, match=rf"is no {kind} data set, but looks like another\. Write {own}:"):
            read_test_set(f"{kind}:{root}")
    split = KINDS[own].test and f"#{KINDS[own].test}"
    assert f"for example {own}:{root}" in refused("data", "check", root)
    if own != "pairs":
        above = root.parent
        assert f"{own}:{root} looks like one" in refused("data", "check", f"{own}:{above}{split}")
        assert len(read_test_set(f"{own}:{root}{split}"))


@pytest.mark.parametrize("path", ["x" * 5000, "x" * 300 + "#y"])
def test_an_impossible_path_is_no_folder(refused: Callable[..., str], path: str) -> None:
    assert "is not a folder" in refused("data", "check", f"pairs:{path}")


def test_a_set_without_an_image_left_names_the_missing_one(tmp_path: Path, refused: Callable[..., str]) -> None:
    root = trees.cvusa(tmp_path, {"val-19zl.csv": [1]})
    (root / "bingmap/19/0000001.jpg").unlink()
    message = refused("data", "check", f"cvusa:{root}#val")
    assert "holds no pairs" in message
    assert message.index("0000001.jpg (missing)") < message.index("holds no pairs"), "the cause comes second"
    assert "0000001.jpg (missing)" in message


GARBAGE = st.one_of(
    st.binary(max_size=400),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.sampled_from(["a", ",", " ", "\n", "\r", '"', "\0", "1", ".", "\ufeff", "x" * 300, "/", ".."])).map(
        lambda parts: "".join(parts).encode()
    ),
)
FILES = {
    "cvusa": ("splits/val-19zl.csv", "#val"),
    "vigor": ("splits/NewYork/same_area_balanced_test.txt", "#same-test"),
    "pairs": ("pairs.csv", ""),
    "prepared": ("prepared.json", ""),
    "gta": ("same-area-drone2sate-test.json", "#same-d2s"),
    "visloc": ("cross-area-drone2sate-train.json", "#cross-train"),
}


@pytest.mark.parametrize("kind", FILES)
@given(garbage=GARBAGE)
@settings(max_examples=150, deadline=None)
def test_garbage_for_a_list_is_an_error_that_names_it(
    tmp_path_factory: pytest.TempPathFactory, kind: str, garbage: bytes
) -> None:
    assert set(FILES) == set(KINDS) - {"cvact", "university", "sues", "denseuav"}
    file, split = FILES[kind]
    root = tmp_path_factory.getbasetemp() / f"garbage-{kind}"
    if kind == "vigor":
        trees.vigor(root, [])
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(garbage)
    with pytest.raises(DataError):
        read_test_set(f"{kind}:{root}{split}")
