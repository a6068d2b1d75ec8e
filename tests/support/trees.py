"""Small data sets in the layouts of the real ones, for tests, with images of their size."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

TILES = tuple(f"satellite_41.{n}_-87.{n}.png" for n in range(8))
"""Names of VIGOR's tiles."""
IDS = ["-abcdefghijklmnopqrstu", "_bcdefghijklmnopqrstuv", "cdefghijklmnopqrstuvwx", "defghijklmnopqrstuvwxy"]
UTM = [(690000.0, 6090000.0), (690003.0, 6090004.0), (690003.0, 6090004.5), (700000.0, 6100000.0)]
"""Four panoramas of CVACT: their ids and where they were taken, the first three within 5 m."""

CITIES = ("NewYork", "Seattle", "SanFrancisco", "Chicago")


def write_image(path: Path, width: int, height: int) -> Path:
    """A JPEG of coloured blocks derived from its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(list(str(path).encode()))
    blocks = Image.fromarray(random.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    blocks.resize((width, height), Image.Resampling.NEAREST).save(path, "jpeg")
    return path


def cvusa(root: Path, lists: Mapping[str, Sequence[int]], newline: str = "\n", start: str = "") -> Path:
    """CVUSA with the images of all `lists` (file below splits: numbers of its pairs)."""
    for name, numbers in lists.items():
        path = root / "splits" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            f"bingmap/19/{n:07d}.jpg,streetview/panos/{n:07d}.jpg,streetview/annotations/{n:07d}.png" for n in numbers
        ]
        path.write_bytes((start + "".join(row + newline for row in rows)).encode())
        for n in numbers:
            write_image(root / f"bingmap/19/{n:07d}.jpg", 750, 750)
            write_image(root / f"streetview/panos/{n:07d}.jpg", 1232, 224)
    return root


def cvact(root: Path, ids: Sequence[str], utm: Sequence[tuple[float, float]], **splits: Sequence[int]) -> Path:
    """CVACT with rows counted from 1 in `splits` (train, val, test)."""
    root.mkdir(parents=True, exist_ok=True)
    structs = {"train": ("trainSet", "trainInd"), "val": ("valSet", "valInd"), "test": ("valSetAll", "valInd")}
    rows = {
        struct: {field: np.array(splits.get(name, []), np.float64)[:, None]}
        for name, (struct, field) in structs.items()
    }
    savemat(root / "ACT_data.mat", {"panoIds": np.array(ids), "utm": np.array(utm), **rows})
    for split, numbers in splits.items():
        folder = root / ("ANU_data_small" if split == "train" else "ANU_data_test")
        for n in numbers:
            write_image(folder / "streetview" / f"{ids[n - 1]}_grdView.jpg", 1664, 832)
            write_image(folder / "satview_polish" / f"{ids[n - 1]}_satView_polish.jpg", 1200, 1200)
    return root


def vigor(
    root: Path,
    panoramas: Iterable[tuple[str, str, Sequence[str]]],
    *,
    labels: str = "same_area_balanced_test",
    extra: Sequence[str] = (),
    ground: str = "panorama",
    folder: str = "splits",
) -> Path:
    """VIGOR with (city, panorama, tiles) in the lists called `labels`; Chicago's tiles include the `extra` ones."""
    panoramas = list(panoramas)
    for city in CITIES:
        own = [(name, tiles) for place, name, tiles in panoramas if place == city]
        tiles = list(dict.fromkeys(tile for _, four in own for tile in four)) + list(extra if city == "Chicago" else ())
        lists = root / folder / city
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{labels}.txt").write_text(
            "".join(f"{name} {' '.join(f'{tile} 1.0 -2.5' for tile in four)} \n" for name, four in own)
        )
        (lists / "satellite_list.txt").write_text("".join(f"{tile}\n" for tile in tiles))
        for name, _ in own:
            write_image(root / city / ground / name, 2048, 1024)
        for tile in tiles:
            write_image(root / city / "satellite" / tile, 640, 640)
    return root


def university(
    root: Path, *, train: Sequence[str] = ("0001", "0002"), test: Sequence[str] = ("0003", "0004", "0005")
) -> Path:
    """University-1652 with three drone images and a tile a place; the last of the `test` places is no query."""
    for place in train:
        _university_place(root / "train/drone", root / "train/satellite", place)
    for places, kind in ((test[:-1], "query"), (test, "gallery")):
        for place in places:
            _university_place(root / f"test/{kind}_drone", root / f"test/{kind}_satellite", place)
    return root


def _university_place(drone: Path, satellite: Path, place: str) -> None:
    for n in range(1, 4):
        write_image(drone / place / f"image-{n:02d}.jpeg", 8, 8)
    write_image(satellite / place / f"{place}.jpg", 8, 8)


def sues(
    root: Path, heights: Sequence[str], *, train: Sequence[str] = ("0001",), test: Sequence[str] = ("0008",)
) -> Path:
    """SUES-200 as its script divides it, with one drone image and a tile a place at each height."""
    for height in heights:
        folders = {"Training/{}/": train, "Testing/{}/query_": test, "Testing/{}/gallery_": test}
        for folder, places in folders.items():
            for place in places:
                write_image(root / f"{folder.format(height)}drone" / place / "0.jpg", 4, 4)
                write_image(root / f"{folder.format(height)}satellite" / place / "0.png", 4, 4)
    return root


def denseuav(root: Path, train: Sequence[str] = ("000001",), test: Sequence[str] = ("000002", "000003")) -> Path:
    """DenseUAV with drone images at three heights and six tiles a place, and their positions."""
    for folder, places in (
        ("train/{}", train),
        ("test/query_{}", test),
        ("test/gallery_{}", (*train, *test)),
    ):
        for place in places:
            for height in (80, 90, 100):
                write_image(root / folder.format("drone") / place / f"H{height}.JPG", 8, 8)
                for age in ("", "_old"):
                    write_image(root / folder.format("satellite") / place / f"H{height}{age}.tif", 8, 8)
    rows = [f"/data/test/drone/{place}/H80.JPG E120.{place} N30.{place} 94.5\n" for place in (*train, *test)]
    (root / "Dense_GPS_ALL.txt").write_text("".join(rows))
    return root


def overlaps(root: Path, lists: Mapping[str, Mapping[str, Mapping[str, float]]], tiles: Sequence[str]) -> Path:
    """GTA-UAV, or UAV-VisLoc prepared like it: `lists` by file name have, by drone image, the overlap of each right
    tile; every image has a semi-positive, too.
    """
    for name in tiles:
        write_image(root / "satellite" / name, 8, 8)
    for file, images in lists.items():
        entries = [
            {
                "drone_img_dir": "drone/images",
                "drone_img_name": name,
                "drone_loc_x_y": [100.0, 200.0],
                "sate_img_dir": "satellite",
                "pair_pos_sate_img_list": list(right),
                "pair_pos_sate_weight_list": list(right.values()),
                "pair_pos_semipos_sate_img_list": [*right, tiles[-1]],
                "pair_pos_semipos_sate_weight_list": [*right.values(), 0.2],
                "drone_metadata": {"height": None},
            }
            for name, right in images.items()
        ]
        (root / file).write_text(json.dumps(entries))
        for name in images:
            write_image(root / "drone/images" / name, 8, 6)
    return root
