"""From Python every argument is checked as the command line checks it: by one error that names what is allowed."""

import ast
import pickle
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from checkout import ROOT
from msgspec import Meta
from tiny_world import HEIGHT, WIDTH, TinyWorld, make_world

from geodtr import Bundle, Localizer, UserError, build_gallery, embed, open_bundle, open_gallery
from geodtr.runtime.arguments import check_argument, check_fields, check_several
from geodtr.runtime.autopilot.options import Gates, LinkOptions
from geodtr.runtime.embed.pipeline import embed_frames
from geodtr.runtime.engines.base import EngineOptions
from geodtr.runtime.errors import ArgumentError, ConfigError, ImageError
from geodtr.runtime.geodesy import Near
from geodtr.runtime.images.frames import open_frames
from geodtr.runtime.images.intake import Intake
from geodtr.runtime.localization.nadir.hypotheses import NadirOptions
from geodtr.runtime.localization.nadir.refine import RefineOptions
from geodtr.runtime.machine import THREADS_A_CORE
from geodtr.runtime.names import Branch
from geodtr.runtime.sources.positioned.folder import FolderOptions
from geodtr.runtime.sources.raster.cut import GeoTiffOptions
from geodtr.runtime.sources.tiled.slippy import XyzOptions
from geodtr.runtime.tracking.filter import TrackOptions
from geodtr.training.data.readers.pairs_csv import write_pairs


@dataclass(frozen=True)
class Everything:
    name: Branch = "ground"
    count: int = 1
    ratio: float | None = None
    flag: bool = False
    place: Path | Literal["none"] = "none"
    span: tuple[float, float] = (0.0, 1.0)
    words: tuple[str, ...] = ()
    near: Near | None = None
    share: Annotated[float | None, Meta(gt=0, lt=1)] = 0.5
    metres: Annotated[float, Meta(gt=0, description="metres")] = 1.0
    side: Annotated[int, Meta(ge=1, le=4096, description="pixels")] = 1
    elsewhere: "Nowhere" = None  # type: ignore[name-defined] # noqa: F821
    numbers: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({"name": "Ground"}, "name is 'Ground'; allowed: ground, aerial."),
        ({"name": ["ground"]}, r"allowed: ground, aerial\."),
        ({"count": 1.5}, "count is 1.5; allowed: a whole number."),
        ({"count": True}, "allowed: a whole number"),
        ({"ratio": "2"}, "ratio is '2'; allowed: a number or None."),
        ({"flag": "no"}, "flag is 'no'; allowed: True or False."),
        ({"place": 5}, "place is 5; allowed: a path or none."),
        ({"span": "60,140"}, r"span is '60,140'; allowed: \(a number, a number\)\."),
        ({"span": (1.0, 2.0, 3.0)}, "allowed: "),
        ({"words": (1,)}, r"allowed: \(text, \.\.\.\)"),
        ({"near": (1, 2, 3)}, r"near is \(1, 2, 3\); allowed: Near or None"),
        ({"share": "1"}, "share is '1'; allowed: a number or None."),
        ({"share": 1}, "share is 1; it must lie between 0 and 1."),
        ({"metres": 0.0}, "metres is 0; it must be above 0 metres, and finite."),
        ({"metres": float("inf")}, "metres is inf; it must be above 0 metres, and finite."),
        ({"side": 0}, "side is 0; allowed are 1 to 4096 pixels."),
        ({"side": 4097}, "side is 4097; allowed are 1 to 4096 pixels."),
    ],
)
def test_a_value_of_another_type_is_named_with_what_is_allowed(given: dict[str, Any], allowed: str) -> None:
    with pytest.raises(ConfigError, match=allowed):
        Everything(**given)


def test_values_of_the_declared_types_are_taken() -> None:
    near = Near(48, 8, 5)
    Everything("aerial", int(np.int64(3)), 2, True, Path("a"), [1, 2], ("a", "b"), near, None)  # type: ignore[arg-type]
    Everything(count=np.int32(3), ratio=np.float32(0.5), place="text", elsewhere=object())  # type: ignore[arg-type]
    check_argument("count", np.int64(3), int, 1)


@pytest.mark.parametrize("value", [0, -1, np.int64(0), float("nan"), 10**400])
def test_numbers_have_bounds(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"count is .*; allowed: 1 to 9"):
        check_argument("count", value, int | float, 1, 9)


def test_a_message_names_each_argument_as_its_reader_does() -> None:
    error = ArgumentError("least", "4 and {} contradict each other: leave {} out.", "most", "most")
    assert str(error) == "least 4 and most contradict each other: leave most out."
    assert error.spelled("--{}".format) == "--least 4 and --most contradict each other: leave --most out."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(ArgumentError("pattern", "is '{lat}'")) == "pattern is '{lat}'"


@pytest.mark.parametrize("room", ["runtime", "training", "calibration", "export"])
def test_no_message_of_the_library_begins_with_an_option(room: str) -> None:
    """Which a caller of Python has not typed: `ArgumentError` names the argument, and the command line its option."""
    for path in (ROOT / room).rglob("*.py"):
        for raised in ast.walk(ast.parse(path.read_text())):
            if isinstance(raised, ast.Raise) and isinstance(raised.exc, ast.Call):
                first = next((each for argument in raised.exc.args for each in ast.walk(argument)), None)
                parts = first.values[:1] if isinstance(first, ast.JoinedStr) else [first]
                begins = [str(each.value) for each in parts if isinstance(each, ast.Constant)]
                assert not any(text.startswith("--") for text in begins), f"{path}: {begins}"


@pytest.mark.parametrize("values", ["street.png", b"street.png", Path("street.png"), 5, None])
def test_one_value_for_several_is_refused(values: Any) -> None:
    with pytest.raises(ConfigError, match=r"images is .*; allowed: a list of files"):
        check_several("images", values, "files")


@pytest.mark.parametrize(
    ("of", "given"),
    [
        (EngineOptions, {"threads": 1.5}),
        (NadirOptions, {"rotations": 1.5}),
        (NadirOptions, {"frame_metres": "60,140"}),
        (NadirOptions, {"altitude": "80"}),
        (RefineOptions, {"places": "5"}),
        (TrackOptions, {"particles": "many"}),
        (Intake, {"shape": "square"}),
        (Intake, {"mismatch": "ignore"}),
        (Near, {"lat": "48", "lon": 8, "radius": 5}),
        (LinkOptions, {"address": "udpout:127.0.0.1:9", "kind": "gps"}),
        (LinkOptions, {"address": "udpout:127.0.0.1:9", "rate": "5"}),
        (Gates, {"max_sigma": "50"}),
        (GeoTiffOptions, {"tile_metres": "60"}),
        (XyzOptions, {"merge": 1.5}),
        (FolderOptions, {"positions": 5}),
    ],
)
def test_options_refuse_what_they_do_not_declare(of: Callable[..., object], given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r" is .*; allowed: "):
        of(**given)


def test_positions_are_an_origin_or_a_file() -> None:
    file: Any = "tiles.csv"
    assert (FolderOptions("exif").positions, FolderOptions(file).positions) == ("exif", Path("tiles.csv"))


def test_threads_are_bounded_by_the_cores() -> None:
    EngineOptions(threads=THREADS_A_CORE)
    for threads in (0, 100_000):
        with pytest.raises(ConfigError, match=rf"threads is {threads}; allowed: 1 to \d+, {THREADS_A_CORE} for each"):
            EngineOptions(threads=threads)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return make_world(tmp_path_factory.mktemp("arguments"), 2)


@pytest.fixture(scope="module")
def bundle(tiny: TinyWorld) -> Bundle:
    return open_bundle(tiny.bundle)


@pytest.mark.parametrize("branch", ["Ground", "grnd", "", None, 0])
def test_a_branch_of_another_name_opens_no_engine(bundle: Bundle, branch: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: bundle.embedder(branch),
        lambda: bundle.embedders()[branch],
        lambda: bundle.layer_times(branch, np.zeros((1, HEIGHT, WIDTH, 3), np.uint8), 1),
        lambda: embed(bundle, [], branch=branch),
        lambda: bundle.manifest.engine(branch),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=r"branch is .*; allowed: ground, aerial\."):
            call()


@pytest.mark.parametrize(("name", "value"), [("storage", "int4"), ("index", "Flat"), ("storage", None)])
def test_a_gallery_of_an_unknown_kind_is_not_begun(tiny: TinyWorld, tmp_path: Path, name: str, value: Any) -> None:
    tiles = tiny.bundle.parent / "tiles"
    wrong: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=f"{name} is {value!r}; allowed: fl"):
        build_gallery(tmp_path / "map", tiles, tiny.bundle, **wrong)
    assert not (tmp_path / "map").exists()
    assert build_gallery(tmp_path / "map", tiles, tiny.bundle).embedded == 4


def test_a_gallery_takes_a_data_set_as_the_command_line_does(tiny: TinyWorld, tmp_path: Path) -> None:
    shutil.copytree(tiny.bundle.parent / "tiles", tmp_path / "pairs")
    for row in (0, 1):
        tiny.photograph(tmp_path / f"pairs/ground{row}.png", row)
    write_pairs(tmp_path / "pairs", [(f"ground{row}.png", f"00{row}.png", 48, 8, 0) for row in (0, 1)])
    spec = f"pairs:{tmp_path / 'pairs'}"
    assert build_gallery(tmp_path / "map", spec, tiny.bundle).embedded == 2
    with pytest.raises(ConfigError, match="leave the options out"):
        build_gallery(tmp_path / "other", spec, tiny.bundle, options=XyzOptions())


@pytest.mark.parametrize("size", [0, -1, 1.5, "8", None])
def test_a_batch_size_that_is_none_is_refused_and_waits_for_nothing(tiny: TinyWorld, bundle: Bundle, size: Any) -> None:
    image = tiny.photograph(tiny.bundle.parent / "street.png", 0)
    engine = bundle.embedder("ground")
    errors = list[UserError]()

    def call(take: Callable[[], Iterable[object]]) -> None:
        try:
            list(take())
        except UserError as error:
            errors.append(error)

    for take in (
        lambda: embed(bundle, [image], batch_size=size),
        lambda: embed_frames(engine, [image], batch_size=size),
    ):
        thread = Thread(target=call, args=(take,), daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
    assert ["batch_size is" in str(error) for error in errors] == [True, True]


def test_one_path_is_an_image_and_what_is_no_image_is_named(tiny: TinyWorld, bundle: Bundle) -> None:
    image = tiny.photograph(tiny.bundle.parent / "street.png", 0)
    wrong: Any = [b"x"]
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        assert list(localizer.locate_frames(image)) == list(localizer.locate_frames(str(image)))
        assert [each.image for each in localizer.locate_frames(image)] == [str(image)]
        for call in (lambda: list(localizer.locate_frames(wrong)), lambda: localizer.locate(wrong[0])):
            with pytest.raises(ConfigError, match="is b'x'; allowed: a file, pixels"):
                call()
        number: Any = 5
        with pytest.raises(ConfigError, match="images is 5; allowed: a list of"):
            list(localizer.locate_frames(number))
    with pytest.raises(ConfigError, match="image #0 is b'x'"):
        embed(bundle, wrong)
    assert np.array_equal(embed(bundle, image), embed(bundle, [image]))


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [("top", 1.5, "a whole number"), ("top", 0, "at least 1"), ("near", (1, 2, 3), "Near or None")],
)
def test_a_search_refuses_what_is_no_top_and_no_prior(tiny: TinyWorld, argument: str, value: Any, allowed: str) -> None:
    image, wrong = tiny.photograph(tiny.bundle.parent / "street.png", 0), {argument: value}
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        calls: list[Callable[[], object]] = [
            lambda: localizer.locate(image, **wrong),
            lambda: list(localizer.locate_frames([image], **wrong)),
            lambda: localizer.gallery.search(embed(tiny.bundle, image), **{"top": 1, **wrong}),
        ]
        for call in calls:
            with pytest.raises(ConfigError, match=f"{argument} is .*; allowed: {allowed}"):
                call()


@pytest.mark.parametrize("how", [{"headings": 0}, {"headings": 1.5}, {"nadir": {}}, {"refine": True}, {"intake": None}])
def test_a_localizer_refuses_options_of_another_type(tiny: TinyWorld, how: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="; allowed: "):
        Localizer.open(tiny.bundle, tiny.gallery, **how)


@pytest.mark.parametrize("how", [{"every": 0}, {"limit": -1}, {"limit": 1.5}])
def test_frames_are_taken_from_the_first_on(how: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="; allowed: "):
        open_frames(["street.png"], **how)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, HEIGHT, WIDTH, 3), np.float32),
        np.zeros((1, HEIGHT + 1, WIDTH, 3), np.uint8),
        np.zeros((HEIGHT, WIDTH, 3), np.uint8),
        [[0]],
    ],
)
def test_an_engine_names_what_it_takes_and_not_the_bundle(bundle: Bundle, images: Any) -> None:
    with pytest.raises(ImageError, match=rf"uint8 \[B, {HEIGHT}, {WIDTH}, 3\]; given is .*geodtr\.embed"):
        bundle.embedder("ground").embed(images)


@pytest.mark.parametrize("place", [5, None, b"bundle"])
def test_a_place_is_a_path(place: Any) -> None:
    for opens in (open_bundle, open_gallery):
        with pytest.raises(ConfigError, match="allowed: "):
            opens(place)
