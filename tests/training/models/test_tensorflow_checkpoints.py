"""Checkpoints that TensorFlow 1 wrote are read without it, and without executing code."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from official import FIGURES
from tensorflow_file import save_tensorflow

from geodtr.runtime.errors import CheckpointError
from geodtr.training.models.importers.tensorflow import read_variables
from geodtr.training.models.importers.weights import read_weights


def test_every_variable_of_a_real_file_is_read() -> None:
    """TensorFlow 2.21's Saver wrote it, in the form of version 1."""
    expected = np.load(FIGURES / "tensorflow" / "values.npz")
    variables = read_weights(FIGURES / "tensorflow" / "model.ckpt.index")
    assert sorted(variables) == sorted(name.replace("|", "/") for name in expected.files)
    for name in expected.files:
        read = variables[name.replace("|", "/")].numpy()
        assert read.dtype == expected[name].dtype
        np.testing.assert_array_equal(read, expected[name])


def test_many_variables_are_in_several_blocks(tmp_path: Path) -> None:
    written = {f"a/b{number}/weights": np.full((2, number % 3), number, np.float32) for number in range(100)}
    read = read_variables(save_tensorflow(tmp_path / "model.ckpt", written))
    assert {name: tensor.tolist() for name, tensor in read.items()} == {
        name: array.tolist() for name, array in written.items()
    }


def test_a_damaged_file_is_refused_in_words(tmp_path: Path) -> None:
    index = save_tensorflow(tmp_path / "model.ckpt", {"a": np.ones((8, 8), np.float32), "b": np.zeros(3)})
    content = index.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 3):
            damaged[place] = random.integers(256)
        index.write_bytes(bytes(damaged[: random.integers(1, len(content) + 1)]) if random.random() < 0.3 else damaged)
        try:
            read_variables(index)
        except CheckpointError as error:
            refused += "Copy it again" in str(error)
    assert refused > 200


def test_a_missing_or_short_data_file_is_named(tmp_path: Path) -> None:
    index = save_tensorflow(tmp_path / "model.ckpt", {"a": np.ones((8, 8), np.float32)})
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="bytes 0 to 256 of 252"):
        read_variables(index)
    data.unlink()
    with pytest.raises(CheckpointError, match=r"data-00000-of-00001 is not a file.*Copy both"):
        read_variables(index)


@pytest.mark.parametrize("name", ["model.ckpt.meta", "model.ckpt.data-00000-of-00001"])
def test_the_other_files_of_a_checkpoint_name_the_index(tmp_path: Path, name: str) -> None:
    save_tensorflow(tmp_path / "model.ckpt", {"a": np.ones(3, np.float32)})
    (tmp_path / "model.ckpt.meta").write_bytes(b"graph")
    with pytest.raises(CheckpointError, match=r"Give its index: .*model\.ckpt\.index"):
        read_weights(tmp_path / name)


def test_a_checkpoint_s_name_without_an_ending_names_the_index(tmp_path: Path, refused: Callable[..., str]) -> None:
    save_tensorflow(tmp_path / "model.ckpt", {"a": np.ones(3, np.float32)})
    message = refused("import-checkpoint", tmp_path / "model.ckpt", "--out", tmp_path / "m.safetensors")
    assert message.rstrip().endswith("model.ckpt.index")
    assert "model.ckpt is not a file. Give its index" in message
