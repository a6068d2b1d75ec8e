"""The example for many machines, run on one: the gallery equals the one of a single process."""

import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from PIL import Image
from tiny_bundle import write_bundle
from tiny_gallery import pixels_of

from geodtr import open_bundle, open_gallery
from geodtr.runtime.gallery.build import begin_gallery, build_gallery, describe_tiles
from geodtr.runtime.gallery.manifest import GalleryManifest, made_by
from geodtr.runtime.gallery.registry import verify_gallery
from geodtr.runtime.sources.registry import open_source
from geodtr.runtime.sources.tile import Tile

SCRIPT = ROOT / "examples" / "gallery_on_ray.py"

pytestmark = pytest.mark.slow


def _leave_out(tile: Tile, error: Exception) -> None:
    del tile, error


def test_ray_resumes_a_build_and_gives_the_bytes_of_a_single_process(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the example needs Ray: pip install '.[ray]'")
    bundle = open_bundle(write_bundle(tmp_path / "bundle"))
    (tmp_path / "tiles").mkdir()
    for number in range(110):
        Image.fromarray(pixels_of(str(number))).save(tmp_path / "tiles" / f"{number:03}.png")
    bad = tmp_path / "tiles" / "109.png"
    bad.write_bytes(bad.read_bytes()[:30])
    source, embedder = open_source(tmp_path / "tiles"), bundle.embedder("aerial")

    maker = made_by(bundle.manifest)
    alone, many = tmp_path / "alone", tmp_path / "many"
    build_gallery(alone, source, embedder, maker, on_bad_tile=_leave_out)
    begun = GalleryManifest(descriptor_size=16, storage="float32", source=source.name, made_by=maker)
    with begin_gallery(many, begun) as writer:
        for tiles, descriptors in describe_tiles(source, source.tiles[:32], embedder):
            writer.add(tiles, descriptors)

    command = [sys.executable, SCRIPT, bundle.path, tmp_path / "tiles", "--out", many, "--actors", "2"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "77 tiles embedded, 32 were there, 1 left out" in done.stdout
    assert "109.png" in done.stderr
    assert verify_gallery(many).faults == ()
    with open_gallery(alone) as one, open_gallery(many) as other:
        assert list(other.all_tiles()) == list(one.all_tiles())
        assert other.info.finished
    name = "descriptors-1.float32"
    assert (many / name).read_bytes() == (alone / name).read_bytes()
