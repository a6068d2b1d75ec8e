"""Calibration: which images are taken, what ranges their values make, and when a ranges file is used again."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Outcome, Trained
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geodtr.calibration.activations import measure_activations
from geodtr.calibration.operators import operators
from geodtr.calibration.select import at_random, coreset, stratified
from geodtr.calibration.thresholds import BINS, Histogram, threshold_of
from geodtr.runtime.embed.pipeline import load_batches
from geodtr.runtime.engines.onnxruntime import open_session
from geodtr.runtime.images.preprocess import load_image
from geodtr.runtime.names import METHODS, Method
from geodtr.runtime.spec import INPUT

PATHS = [Path(f"{number:03}.png") for number in range(60)]


@settings(max_examples=50, deadline=None)
@given(values=arrays(np.float32, 200, elements=st.floats(-100, 100, width=32)), parts=st.integers(1, 7))
def test_a_histogram_does_not_depend_on_the_order_of_its_values(values: np.ndarray, parts: int) -> None:
    low, high = float(values.min()), float(values.max())
    whole, streamed = Histogram.empty(low, high).add(values), Histogram.empty(low, high)
    for part in np.array_split(values, parts):
        streamed = streamed.add(part)
    np.testing.assert_array_equal(streamed.counts, whole.counts)
    if (high - low) / BINS >= np.finfo(np.float32).tiny:  # else the tensor counts as constant
        assert whole.counts.sum() == len(values)


@settings(max_examples=100, deadline=None)
@given(
    values=arrays(np.float32, 300, elements=st.floats(-50, 80, width=32)),
    method=st.sampled_from([method for method in METHODS if method != "minmax"]),
)
def test_a_range_is_within_the_extremes_and_contains_zero_if_they_do(values: np.ndarray, method: Method) -> None:
    low, high = float(values.min()), float(values.max())
    threshold = threshold_of(method)
    assert threshold is not None
    found_low, found_high = threshold(Histogram.empty(low, high).add(values))
    slack = 1e-4 * max(high - low, 1)
    assert low - slack <= found_low <= found_high <= high + slack
    if low <= 0 <= high:
        assert found_low <= 0 <= found_high


@pytest.mark.parametrize("sign", [1, -1])
def test_a_range_without_zero_is_not_widened_towards_it(sign: int) -> None:
    values = sign * np.array([0.75, *[3] * 100, 4], np.float32)
    threshold = threshold_of("mse")
    assert threshold is not None
    ends = threshold(Histogram.empty(float(values.min()), float(values.max())).add(values))
    low, high = sorted(sign * end for end in ends)
    assert low == 0.75
    assert 3 <= high <= 4


@pytest.mark.parametrize(("method", "limit"), [("percentile", 10), ("entropy", 20), ("mse", 36)])
@pytest.mark.parametrize("one_sided", [True, False])
def test_an_outlier_is_clipped_and_the_bulk_is_not(method: Method, limit: float, one_sided: bool) -> None:
    generator = np.random.default_rng(0)
    bulk = generator.normal(size=200_000).astype(np.float32)
    values = np.append(np.abs(bulk) if one_sided else bulk, np.float32(40))
    threshold = threshold_of(method, 99.99)
    assert threshold is not None
    low, high = threshold(Histogram.empty(float(values.min()), float(values.max())).add(values))
    assert 2 < high < limit
    assert abs(low) < 0.1 if one_sided else -limit < low < -2


def test_entropy_does_not_depend_on_the_lower_end_of_the_histogram() -> None:
    values = np.abs(np.random.default_rng(0).laplace(size=400_000)).astype(np.float32)
    values = np.append(values, 1.5 * values.max())
    high = float(values.max())
    threshold = threshold_of("entropy")
    assert threshold is not None
    lows = [-high * share for share in (0, 0.05, 0.1, 0.2, 0.37, 0.5, 0.66, 0.83, 1)]
    thresholds = [threshold(Histogram.empty(low, high).add(values))[1] for low in lows]
    assert max(thresholds) - min(thresholds) < 0.12 * high


@pytest.mark.parametrize("high", [1e-45, 1e-41, 1e-37])
def test_values_too_small_to_divide_are_accepted(high: float) -> None:
    values = np.array([0, high, high, 0], np.float32)
    for method in METHODS:
        threshold = threshold_of(method)
        if threshold is not None:
            low, high_threshold = threshold(Histogram.empty(0, float(values.max())).add(values))
            assert low == 0
            assert 0 <= high_threshold <= 1.001 * values.max()


def test_percentile_keeps_the_given_share() -> None:
    values = np.random.default_rng(0).uniform(0, 1, 100_000).astype(np.float32)
    histogram = Histogram.empty(0, 1).add(values)
    for kept in (50.0, 90.0, 99.0):
        threshold = threshold_of("percentile", kept)
        assert threshold is not None
        assert threshold(histogram)[1] == pytest.approx(kept / 100, abs=5e-3)


def test_every_method_gives_other_ranges_than_minmax_on_a_real_network(trained: Trained) -> None:
    graph = trained.onnx.path / "ground.onnx"
    how = trained.onnx.manifest.ground.spec.preprocessing
    images = trained.train_set.paths("ground")[:24]
    load = partial(load_image, how=how)
    ranges = {method: measure_activations(graph, images, load, threshold_of(method)).ranges for method in METHODS}
    # Entropy keeps the tails of many tensors; the number depends on the machine that trained.
    shares: dict[Method, float] = {"percentile": 0.7, "mse": 0.7, "entropy": 0.25}
    for method, least in shares.items():
        pairs = [(high, ranges["minmax"][name][1]) for name, (_, high) in ranges[method].items()]
        assert all(high <= largest * (1 + 1e-4) for high, largest in pairs)
        assert np.mean([high < 0.98 * largest for high, largest in pairs]) > least


def test_statistics_equal_those_computed_from_the_tensors(trained: Trained) -> None:
    file = trained.onnx.path / "aerial.onnx"
    how = trained.onnx.manifest.aerial.spec.preprocessing
    paths = trained.train_set.paths("aerial")[:19]
    measured = measure_activations(file, paths, partial(load_image, how=how))
    model = onnx.load(str(file))
    (convolution, *_) = (operator for operator in operators(model)[3:] if operator.kind == "Conv")
    model.graph.output.append(onnx.helper.make_tensor_value_info(convolution.reads, onnx.TensorProto.FLOAT, None))
    (batch,) = load_batches(paths, how)
    (values,) = open_session(model.SerializeToString()).run([convolution.reads], {INPUT: batch})
    np.testing.assert_allclose(measured.ranges[convolution.reads], (values.min(), values.max()), rtol=1e-5)
    np.testing.assert_allclose(measured.means[convolution.reads], values.mean(axis=(0, 2, 3)), rtol=1e-4, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(1, 70), seed=st.integers(0, 5), strata=st.lists(st.sampled_from("abc"), min_size=60, max_size=60)
)
def test_selected_images_are_distinct_and_in_order(count: int, seed: int, strata: list[str]) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(60, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for selected in (
        at_random(PATHS, count, seed),
        stratified(PATHS, strata, count, seed),
        coreset(PATHS, rows, count),
    ):
        assert len(selected) == min(count, 60)
        assert selected == sorted(set(selected))


def test_a_rare_region_is_sampled_like_a_common_one() -> None:
    strata = ["common"] * 55 + ["rare"] * 5
    selected = stratified(PATHS, strata, 10)
    assert sum(path in PATHS[55:] for path in selected) == 5


def test_a_coreset_leaves_no_cluster_out() -> None:
    centres = np.eye(6, 16, dtype=np.float32)
    rows = np.repeat(centres, 10, axis=0) + np.random.default_rng(0).normal(0, 0.01, (60, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert {PATHS.index(path) // 10 for path in coreset(PATHS, rows, 6)} == set(range(6))


def test_a_ranges_file_is_used_again_only_when_all_of_it_matches(
    trained: Trained, pairs: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    out = tmp_path / "ranges.json"

    def calibrate(*more: object, images: int = 8) -> str:
        given = ("--data", f"pairs:{pairs}", "--images", images, "--out", out, *more)
        result = cli("calibrate", trained.onnx.path, *given)
        assert result.code == 0, result.err
        return result.err

    assert "nothing was measured yet" in calibrate()
    before = out.read_bytes()
    held = json.loads(before)
    assert [len(held[branch]["images"]) for branch in ("ground", "aerial")] == [8, 8]
    assert "nothing to do" in calibrate()
    assert out.read_bytes() == before
    assert "method changed from minmax to percentile" in calibrate("--method", "percentile")
    assert "method changed from percentile to minmax" in calibrate()
    assert "images changed from 8 to 9" in calibrate(images=9)
    calibrate()
    held = json.loads(out.read_bytes())
    held["ground"]["ranges"] = {}
    out.write_text(json.dumps(held))
    assert "do not cover all quantised tensors" in calibrate()
    used = pairs / "aerial" / json.loads(out.read_bytes())["aerial"]["images"][0]["file"]
    other = next(path for path in used.parent.iterdir() if path.read_bytes() != used.read_bytes())
    shutil.copy(other, used)
    assert " changed." in calibrate()


def test_a_build_takes_the_ranges_it_is_given(
    trained: Trained, pairs: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    ranges = tmp_path / "ranges.json"
    command: tuple[object, ...] = ("build-engine", trained.onnx.path, "--precision", "int8")
    command += ("--calibration", f"pairs:{pairs}", "--ranges", ranges, "--keep-cosine", 0.5, "--images", 12)
    assert cli(*command, "--out", tmp_path / "first").code == 0
    held = ranges.read_bytes()
    assert cli(*command, "--out", tmp_path / "second").code == 0
    assert ranges.read_bytes() == held
    for name in ("ground.onnx", "aerial.onnx"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_folder_of_images_serves_as_well(
    trained: Trained, pairs: Path, cli: Callable[..., Outcome], refused: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "ranges.json"
    command = ("calibrate", trained.onnx.path, "--data", pairs, "--out", out, "--select", "coreset", "--images", 5)
    assert cli(*command).code == 0
    held = json.loads(out.read_bytes())
    assert len(held["ground"]["images"]) == 5
    shutil.rmtree(pairs / "aerial")
    assert "holds no images" in refused("calibrate", trained.onnx.path, "--data", pairs, "--out", tmp_path / "new.json")


def test_a_build_gives_the_reason_why_given_ranges_do_not_match(
    trained: Trained, pairs: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    command: list[object] = ["build-engine", trained.onnx.path, "--precision", "int8"]
    command += ["--calibration", f"pairs:{pairs}", "--keep-cosine", 0.9, "--ranges", tmp_path / "ranges.json"]
    first = cli(*command, "--images", 8, "--out", tmp_path / "first")
    assert (first.code, "measured again" in first.err) == (0, False)
    again = cli(*command, "--images", 8, "--out", tmp_path / "again")
    assert (again.code, "measured again" in again.err, "Calibrating" in again.err) == (0, False, False)
    other = cli(*command, "--images", 9, "--out", tmp_path / "other")
    assert other.code == 0
    assert "measured again, because images changed from 8 to 9" in other.err


_MEMORY = """
import resource, sys
from functools import partial
from pathlib import Path
from geodtr.calibration.activations import measure_activations
from geodtr.calibration.thresholds import threshold_of
from geodtr.runtime.images.preprocess import load_image
from geodtr import open_bundle

bundle, *images = map(Path, sys.argv[1:])
how = open_bundle(bundle).manifest.ground.spec.preprocessing
for times in (1, 40):
    for method in ("minmax", "entropy"):
        measure_activations(bundle / "ground.onnx", images * times, partial(load_image, how=how), threshold_of(method))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_images(trained: Trained) -> None:
    """In a process of its own, for the most that it ever held. All maps of the images together are 30 times as much."""
    command: list[str | Path] = [sys.executable, "-c", _MEMORY, trained.onnx.path]
    command += trained.train_set.paths("ground")[:8]
    few, many = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert many - few < 20_000, "kB"


_DEEP_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from geodtr.calibration.activations import measure_activations

for graph in sys.argv[1:]:
    measure_activations(Path(graph), [Path("any")] * 8, lambda path: np.ones((256, 256, 3), np.uint8))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_depth_of_the_network(tmp_path: Path) -> None:
    """The deep network's maps of eight images are 1.3 GB together: each is gone once it was looked at."""
    files = [tmp_path / "shallow.onnx", tmp_path / "deep.onnx"]
    for file, depth in zip(files, (2, 40), strict=True):
        onnx.save(_chain(depth), str(file))
    command = [sys.executable, "-c", _DEEP_MEMORY, *map(str, files)]
    shallow, deep = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert deep - shallow < 100_000, "kB"


def _chain(depth: int) -> onnx.ModelProto:
    """So many convolutions of eight channels, one after the other, with a function after each."""
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", [INPUT], ["float"], to=types.FLOAT),
        helper.make_node("Transpose", ["float"], ["0"], perm=[0, 3, 1, 2]),
    ]
    weights = []
    for layer in range(depth):
        values = np.full((8, 8 if layer else 3, 1, 1), 0.1, np.float32)
        weights.append(onnx.numpy_helper.from_array(values, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [f"{layer}", f"w{layer}"], [f"conv{layer}"], f"conv{layer}"))
        nodes.append(helper.make_node("Erf", [f"conv{layer}"], [f"{layer + 1}"]))
    ports = [
        helper.make_tensor_value_info(INPUT, types.UINT8, ["batch", 256, 256, 3]),
        helper.make_tensor_value_info(f"{depth}", types.FLOAT, ["batch", 8, 256, 256]),
    ]
    graph = helper.make_graph(nodes, "chain", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_another_seed_draws_other_images(
    trained: Trained, pairs: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    drawn: list[object] = []
    for seed in (0, 1, 1):
        out = tmp_path / f"{len(drawn)}.json"
        command = ("calibrate", trained.onnx.path, "--data", f"pairs:{pairs}", "--images", 5, "--seed", seed)
        assert cli(*command, "--out", out).code == 0
        drawn.append(json.loads(out.read_bytes())["ground"]["images"])
    assert drawn[0] != drawn[1] == drawn[2]


def test_tiles_given_for_panoramas_are_refused(
    trained: Trained, pairs: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    shutil.rmtree(pairs / "ground")
    shutil.copytree(pairs / "aerial", pairs / "ground")
    message = refused("calibrate", trained.onnx.path, "--data", pairs, "--out", tmp_path / "ranges.json")
    assert "for the ground branch are square" in message


def test_panoramas_given_for_tiles_are_refused(
    trained: Trained, pairs: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    (pairs / "aerial").rename(pairs / "held")
    (pairs / "ground").rename(pairs / "aerial")
    (pairs / "held").rename(pairs / "ground")
    assert "square" in refused("calibrate", trained.onnx.path, "--data", pairs, "--out", tmp_path / "ranges.json")


def test_folders_with_equal_file_names_are_separate(
    trained: Trained, pairs: Path, cli: Callable[..., Outcome], tmp_path: Path
) -> None:
    folder = tmp_path / "flights"
    for branch in ("ground", "aerial"):
        images = sorted((pairs / branch).iterdir())[:4]
        for day, image in zip("abcd", images, strict=True):
            (folder / branch / day / "camera").mkdir(parents=True)
            shutil.copy(image, folder / branch / day / "camera" / "0.png")
    command = ("calibrate", trained.onnx.path, "--data", folder, "--select", "stratified", "--images", 3)
    assert cli(*command, "--out", tmp_path / "ranges.json").code == 0
    folder.rename(tmp_path / "moved")
    again = cli(*command[:3], tmp_path / "moved", *command[4:], "--out", tmp_path / "ranges.json")
    assert "nothing to do" in again.err


def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    trained: Trained, pairs: Path, refused: Callable[..., str]
) -> None:
    message = refused("calibrate", trained.onnx.path, "--data", f"pairs:{pairs}", "--out", "/sys/ranges.json")
    assert "cannot be written" in message
    assert "Calibrating" not in message


def test_another_file_is_not_overwritten(
    trained: Trained, pairs: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "notes.json"
    out.write_text('{"mine": true}')
    message = refused("calibrate", trained.onnx.path, "--data", f"pairs:{pairs}", "--out", out)
    assert "not a ranges file" in message
