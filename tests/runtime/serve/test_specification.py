"""The specification against the server: requests made up from it by schemathesis, right ones and wrong ones."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import SUPPORT
from serving import Running, serving
from tiny_world import make_world

TOKEN = "0123456789abcdef"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    tiny = make_world(tmp_path_factory.mktemp("tiny"), across=4)
    with serving(tiny.bundle, tiny.gallery, token=TOKEN) as running:
        yield running


def test_the_specification_is_whole(running: Running) -> None:
    document = running.ask("/openapi.json", headers=AUTHORISED).json
    named = set(str(document).split("#/components/schemas/")[1:])
    assert {each.partition("'")[0] for each in named} <= set(document["components"]["schemas"])
    assert document["security"] == [{"token": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert {"401", "500"} <= set(operation["responses"]), path


@pytest.mark.slow
def test_the_server_does_what_its_specification_states(running: Running, tmp_path: Path) -> None:
    command = (Path(sys.executable).with_name("st"), "run", f"{running.server.address}/openapi.json")
    # The stream has no end, and frames are there only where there is a live view.
    left_out = ("--exclude-path", "/v1/stream", "--exclude-path", "/v1/frames/{number}")
    how = ("--max-examples", "10", "--phases", "coverage,fuzzing", "--seed", "0", "--generation-database", "none")
    known = ("--header", f"Authorization: Bearer {TOKEN}")
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(SUPPORT)}
    done = subprocess.run(
        [*command, *left_out, *how, *known], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert running.reports == []
