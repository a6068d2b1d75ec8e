"""A model repository for Triton: its files, its Python model with a stand-in for Triton's module, and the real server.

The real server is the one of nvidia-pytriton, which has the Python backend alone and wants NumPy 1, so that it is in an
environment of its own. Name that environment's folder by GEODTR_TRITON:

    python3 -m venv triton && triton/bin/pip install nvidia-pytriton --editable '.[cpu]'
    GEODTR_TRITON=$PWD/triton pytest -m slow tests/runtime/triton
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checkout import SUPPORT
from conftest import Outcome
from tiny_world import SPACING, TinyWorld, claim_radii, make_world

from geodtr import Localizer, open_bundle
from geodtr.runtime.errors import ConfigError, GalleryError, OutputExists
from geodtr.runtime.gallery.folder.verify import verify
from geodtr.runtime.gallery.location import as_location
from geodtr.runtime.geodesy import distance
from geodtr.runtime.triton.model import TritonPythonModel
from geodtr.runtime.triton.repository import LOCALIZE, TritonOptions, write_repository

ROWS = (3, 40, 63)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    tiny = make_world(tmp_path_factory.mktemp("tiny"))
    claim_radii(tiny, 15.1, 30.0)
    return tiny


@pytest.fixture(scope="module")
def repository(tiny: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("triton") / "models"
    names = write_repository(tiny.bundle, as_location(tiny.gallery), out, TritonOptions(top=4))
    assert names == ["geodtr_aerial", "geodtr_ground", LOCALIZE]
    return out


def config_of(folder: Path) -> str:
    return " ".join((folder / "config.pbtxt").read_text().split())


def test_branches_are_the_bundles_graphs_with_their_shapes(tiny: TinyWorld, repository: Path) -> None:
    for branch in ("ground", "aerial"):
        folder = repository / f"geodtr_{branch}"
        assert (folder / "1" / "model.onnx").read_bytes() == (tiny.bundle / f"{branch}.onnx").read_bytes()
        config = config_of(folder)
        assert f'name: "geodtr_{branch}" backend: "onnxruntime" max_batch_size: 32' in config
        assert 'input { name: "images" data_type: TYPE_UINT8 dims: [ 16, 64, 3 ] }' in config
        assert re.search(r'output \{ name: "descriptors" data_type: TYPE_FP32 dims: \[ \d+ \] \}', config)
        assert "dynamic_batching { max_queue_delay_microseconds: 2000 }" in config
    assert open_bundle(repository / LOCALIZE / "1" / "bundle").manifest == open_bundle(tiny.bundle).manifest
    assert verify(repository / LOCALIZE / "1" / "gallery") == ()


class Response:
    def __init__(self, output_tensors: list[Any], error: Any = None) -> None:
        self.tensors, self.error = {each.name: each.values for each in output_tensors}, error


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for Triton's module, as far as the model uses it."""
    module: Any = ModuleType("triton_python_backend_utils")
    module.Tensor = lambda name, values: SimpleNamespace(name=name, values=values, as_numpy=lambda: values)
    module.InferenceResponse = Response
    module.TritonError = str
    module.get_input_tensor_by_name = lambda request, name: request.get(name)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)


def loaded(repository: Path) -> TritonPythonModel:
    """The model as Triton loads it: its file, and its configuration as JSON."""
    pairs = re.findall(r'key: "(\w+)" value: \{ string_value: "([^"]*)"', config_of(repository / LOCALIZE))
    config = {"parameters": {key: {"string_value": value} for key, value in pairs}}
    content: dict[str, Any] = {}
    exec((repository / LOCALIZE / "1" / "model.py").read_text(), content)
    model: TritonPythonModel = content["TritonPythonModel"]()
    place = {"model_repository": str(repository / LOCALIZE), "model_version": "1"}
    model.initialize({**place, "model_config": json.dumps(config)})
    return model


def request_of(images: list[bytes], near: list[list[float]] | None = None) -> dict[str, Any]:
    given = {"IMAGE": np.array(images, object).reshape(-1, 1)}
    if near is not None:
        given["NEAR"] = np.array(near)
    return {name: SimpleNamespace(as_numpy=lambda values=values: values) for name, values in given.items()}


@pytest.mark.usefixtures("backend")
def test_requests_of_one_batch_are_answered_each_for_itself(tiny: TinyWorld, repository: Path, tmp_path: Path) -> None:
    images = [tiny.photograph(tmp_path / f"{row}.png", row) for row in ROWS]
    contents = [image.read_bytes() for image in images]
    model = loaded(repository)
    far = [float(tiny.lat[3]), float(tiny.lon[3]), 60.0]
    good, bad, near, wrong = model.execute(
        [
            request_of(contents),
            request_of([contents[0], b"no image"]),
            request_of([contents[2], contents[2]], [far, [np.nan] * 3]),
            request_of(contents[:1], [[95.0, 0.0, 60.0]]),
        ]
    )
    model.finalize()
    with Localizer.open(tiny.bundle, tiny.gallery) as localizer:
        expected = list(localizer.locate_frames(images, 4))
    for row, answer in enumerate(expected):
        assert answer.fix is not None
        np.testing.assert_allclose(good.tensors["POSITION"][row], (answer.fix.lat, answer.fix.lon), atol=1e-9)
        assert [name.decode() for name in good.tensors["TILE"][row]] == [each.place.id for each in answer.candidates]
        np.testing.assert_allclose(good.tensors["SCORE"][row], [each.score for each in answer.candidates], atol=1e-6)
        np.testing.assert_allclose(good.tensors["WITHIN"][row], (15.1, 30.0), rtol=1e-6)
        assert json.loads(good.tensors["ANSWER"][row, 0])["state"] == "fix"
    assert (good.error, "image 1 of the request" in bad.error) == (None, True)
    assert distance(*near.tensors["POSITION"][0], *far[:2]) < 100
    second = near.tensors["POSITION"][1]
    assert distance(second[0], second[1], tiny.lat[63], tiny.lon[63]) < SPACING / 5
    assert np.isnan(near.tensors["WITHIN"][0]).all(), "no calibration for this prior"
    assert near.tensors["TILE"][0].tolist().count(b"") == 4 - np.isfinite(near.tensors["SCORE"][0]).sum()
    assert "not on Earth" in wrong.error


def test_what_cannot_be_served_is_refused(tiny: TinyWorld, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_world(tmp_path / "other", across=2)
    manifest = other.gallery / "gallery.json"
    manifest.write_text(manifest.read_text().replace("0123456789abcdef", "fedcba9876543210"))
    with pytest.raises(GalleryError):
        write_repository(tiny.bundle, as_location(other.gallery), tmp_path / "out")
    with pytest.raises(OutputExists):
        write_repository(tiny.bundle, None, tiny.gallery)
    with pytest.raises(GalleryError):
        write_repository(tiny.bundle, as_location(tmp_path / "nowhere"), tmp_path / "out")
    for values in ({"max_batch": 0}, {"top": 5000}, {"headings": 0}, {"delay_us": -1}):
        with pytest.raises(ConfigError, match=next(iter(values))):
            TritonOptions(**values)
    assert not (tmp_path / "out").exists()


def test_the_command(tiny: TinyWorld, cli: Callable[..., Outcome], tmp_path: Path) -> None:
    out = tmp_path / "models"
    printed = cli("bundle", "triton", tiny.bundle, "--out", out, "--max-batch", 8)
    assert (printed.code, "geodtr_aerial, geodtr_ground" in printed.err) == (0, True)
    assert sorted(each.name for each in out.iterdir()) == ["geodtr_aerial", "geodtr_ground"]
    assert "max_batch_size: 8" in config_of(out / "geodtr_ground")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.slow
def test_the_real_server_answers_over_http_and_grpc(tiny: TinyWorld, repository: Path, tmp_path: Path) -> None:
    if "GEODTR_TRITON" not in os.environ:
        pytest.skip("needs an environment with nvidia-pytriton and geodtr-export: GEODTR_TRITON")
    environment = Path(os.environ["GEODTR_TRITON"]).absolute()
    (site,) = (environment / "lib").glob("python3*/site-packages")
    server = site / "pytriton" / "tritonserver"
    backend = tmp_path / "backends" / "python"
    backend.mkdir(parents=True)
    stub = server / "python_backend_stubs" / site.parent.name.removeprefix("python") / "triton_python_backend_stub"
    for file in (stub, *(server / "backends" / "python").glob("*.*")):
        (backend / file.name).symlink_to(file)
    http, grpc = free_port(), free_port()
    line = [str(server / "bin" / "tritonserver"), f"--model-repository={repository}"]
    line += [f"--backend-directory={backend.parent}", f"--http-port={http}", f"--grpc-port={grpc}"]
    line += ["--allow-metrics=false", "--model-control-mode=explicit", f"--load-model={LOCALIZE}"]
    own = {
        **os.environ,
        "LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs"),
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
    }
    images = [tiny.photograph(tmp_path / f"{row}.png", row) for row in ROWS]
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    near = f"{float(tiny.lat[63])},{float(tiny.lon[63])},60"
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(line, env=own, cwd=tmp_path, stdout=log, stderr=log) as process,
    ):
        try:
            ask = [environment / "bin" / "python", SUPPORT / "triton_client.py", http, grpc, tmp_path / "bad.jpg", near]
            client = subprocess.run([*map(str, ask), *map(str, images)], capture_output=True, text=True, check=False)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    assert client.returncode == 0, client.stderr + (tmp_path / "log").read_text()
    results = json.loads(client.stdout)
    assert results["http"] == {**results["grpc"], "error": results["http"]["error"]}
    for way in ("http", "grpc"):
        answers = results[way]["all"]
        assert answers["states"] == ["fix"] * 3
        assert [tiles[0] for tiles in answers["tile"]] == [f"{row:03}.png" for row in ROWS]
        for row, position in zip(ROWS, answers["position"], strict=True):
            assert distance(position[0], position[1], tiny.lat[row], tiny.lon[row]) < SPACING / 5
        np.testing.assert_allclose(answers["within"], [[15.1, 30.0]] * 3, rtol=1e-6)
        (bounded,) = results[way]["near"]["position"]
        assert distance(bounded[0], bounded[1], tiny.lat[63], tiny.lon[63]) < 100
        assert "is not an image" in results[way]["error"]
