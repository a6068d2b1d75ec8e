"""Local map files by GDAL, which rasterio (extra `geo`) brings: known formats alone, and nothing from a network.

A map may name other files: a list of sheets, overviews, masks. Each file that GDAL would open is looked at before.
"""

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from shlex import quote
from typing import Any

from geodtr.runtime.errors import DataError, UserError
from geodtr.runtime.files import check_file, readable
from geodtr.runtime.installation import needing
from geodtr.runtime.sources.raster.vrt import local_vrt

_SIGNATURES = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
}
"""How the files begin, and GDAL's driver for each: GDAL's own choice among its 150 would include those that fetch."""

_CACHE = 128 << 20
"""Bytes for the blocks that GDAL keeps decoded: by default it takes a twentieth of the machine's memory."""

_OPTIONS = {
    "GDAL_CACHEMAX": _CACHE,
    # Files that name an address are refused before; one that is overlooked finds no way out.
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "GDAL_HTTP_PROXY": "http://127.0.0.1:0",
    "GDAL_HTTPS_PROXY": "http://127.0.0.1:0",
}

_LONGEST_REASON = 300


def local_only() -> Any:
    """rasterio's environment for maps: everything that may open a file runs within."""
    import rasterio

    return rasterio.Env(**_OPTIONS)


@contextmanager
def gdal(error_class: type[UserError], sentence: str) -> Iterator[None]:
    """Call rasterio in its environment; an error becomes `sentence`, and GDAL's reason."""
    import rasterio
    from rasterio._err import CPLE_BaseError  # GDAL's own errors have no public name, and some come through

    try:
        with local_only():
            yield
    # ValueError: raised for invalid names and reference systems.
    except (rasterio.errors.RasterioError, CPLE_BaseError, ValueError, MemoryError) as error:
        raise error_class(f"{sentence} GDAL reports: {str(error.__cause__ or error)[:_LONGEST_REASON]}") from None


def open_map(path: Path) -> Any:
    """The rasterio dataset of a local file: TIFF, JPEG 2000, PNG, JPEG, or a .vrt, GDAL's list of sheets of these.

    Raises DataError when it is missing, is none of them, or names a file outside its folder or in another format;
    MissingDependency without rasterio.
    """
    with needing("Cutting a map needs rasterio", "geo"):
        import rasterio
    check_file(path, DataError)
    with gdal(DataError, f"{path} is not a map that can be read. Get it again."), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # the caller reports it
        if path.suffix.lower() != ".vrt":
            return _open_file(path)
        with readable(DataError):
            state = path.stat()
        # From memory: what GDAL parses is what was checked, though the file change meanwhile.
        text = _checked_vrt(path, state.st_mtime_ns, state.st_size)
        return rasterio.MemoryFile(text, ext=".vrt").open(driver="VRT")


@lru_cache(maxsize=4)
def _checked_vrt(path: Path, *state: int) -> bytes:
    """The list of sheets as GDAL may have it, once for all threads: to look at ten thousand sheets takes seconds."""
    del state  # with the path it is what the answer is remembered by
    text, sheets = local_vrt(path)
    for sheet in sheets:
        _open_file(sheet).close()
    return text


def _open_file(path: Path) -> Any:
    import rasterio

    _check_files_beside(path)
    dataset = rasterio.open(path, driver=_driver(path))
    if dataset.tags(ns="OVERVIEWS"):
        dataset.close()
        raise DataError(
            f"{path} names another file for its overviews, which may be anywhere. Build them again: "
            f"rio overview --build auto {quote(str(path))}"
        )
    for suffix in (".ovr", ".OVR", ".msk", ".MSK"):
        beside = path.with_name(path.name + suffix)
        with readable(DataError):
            there = beside.exists()
        if there:
            _open_file(beside).close()
    return dataset


def _check_files_beside(path: Path) -> None:
    """Raise DataError where a pipe or a device has the map's name with another ending: GDAL opens such side files
    (.aux.xml, .tfw) by itself, and would wait for what never comes.
    """
    with readable(DataError):
        others = _never_ending(path.parent, path.parent.stat().st_mtime_ns)
    for name in others:
        if name.lower().startswith(f"{path.stem}.".lower()):
            beside = path.with_name(name)
            raise DataError(
                f"{beside} is a pipe or a device, and GDAL would read it with {path.name}. Move it elsewhere."
            )


@lru_cache(maxsize=16)
def _never_ending(folder: Path, changed: int) -> tuple[str, ...]:
    """The pipes and devices in the folder, once until it changes: it may hold ten thousand sheets."""
    del changed
    names = list[str]()
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_file() and not entry.is_dir():
                with suppress(OSError):  # a link that leads nowhere
                    mode = entry.stat().st_mode
                    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                        names.append(entry.name)
    return tuple(names)


def _driver(path: Path) -> str:
    check_file(path, DataError)
    with readable(DataError, path), path.open("rb") as file:
        head = file.read(16)
    for signature, driver in _SIGNATURES.items():
        if head.startswith(signature):
            return driver
    raise DataError(
        f"{path} is not a map that can be read: it is no GeoTIFF, JPEG 2000, PNG or JPEG by its first bytes. Get it "
        "again, or convert it: rio convert"
    )
