"""Shared test data is built once and completely."""

from multiprocessing import get_context
from pathlib import Path

import build_once as module
import pytest
from build_once import build_once


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHE", tmp_path)


def test_it_is_made_again_only_where_the_first_time_broke_off() -> None:
    begun = list[str]()

    def make(folder: Path) -> None:
        begun.append(folder.name)
        assert not list(folder.iterdir()), "what was left of the first time"
        (folder / "part").touch()
        if len(begun) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once("model", make)
    folders = {build_once("model", make) for _ in range(3)}
    assert [[path.name for path in folder.iterdir()] for folder in folders] == [["part"]]
    assert len(begun) == 2


def test_of_several_processes_one_makes_it(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        with (tmp_path / "made").open("a") as file:
            file.write(f"{folder.name}\n")

    together = get_context("fork")
    processes = [together.Process(target=build_once, args=("model", make)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "made").read_text() == "model\n"
