"""Export a gallery's references for other programs as CSV, GeoJSON or Parquet, by the file's suffix."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from geodtr.runtime.files import check_new_file, new_file
from geodtr.runtime.files.text_rows import new_csv
from geodtr.runtime.gallery.base import Gallery
from geodtr.runtime.installation import needing
from geodtr.runtime.sources.tile import Tile

_FIELDS = ("id", "file", "lat", "lon", "heading", "metres_per_pixel")


def export_gallery(gallery: Gallery, out: Path) -> None:
    """Write all references, in the order of their rows, to the new file `out`; its suffix selects the format.

    .csv: one line per reference, unknown values empty, `more` as JSON. .geojson (RFC 7946): one point per reference,
    its geometry null where the position is unknown, all else as properties. .parquet: the same columns and the float32
    descriptor; needs the extra `parquet`.
    Raises ConfigError when the suffix is another, OutputExists, UserError when the file cannot be written,
    MissingDependency.
    """
    check_new_file(out, tuple(_WRITERS))
    with new_file(out, replace=False) as file:
        _WRITERS[out.suffix.lower()](gallery, file)


def _write_csv(gallery: Gallery, path: Path) -> None:
    with new_csv(path) as table:
        table.write((*_FIELDS, "more"))
        for tile in gallery.all_tiles():
            table.write((*(getattr(tile, name) for name in _FIELDS), _json(tile.more)))


def _write_geojson(gallery: Gallery, path: Path) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write('{"type":"FeatureCollection","features":[')
        for index, tile in enumerate(gallery.all_tiles()):
            stream.write(("," if index else "") + "\n" + _json(_feature(tile)))
        stream.write("\n]}\n")


def _feature(tile: Tile) -> dict[str, Any]:
    properties = asdict(tile)
    lat, lon = properties.pop("lat"), properties.pop("lon")
    geometry = None if lat is None else {"type": "Point", "coordinates": [lon, lat]}
    return {"type": "Feature", "id": properties.pop("id"), "geometry": geometry, "properties": properties}


def _write_parquet(gallery: Gallery, path: Path) -> None:
    with needing("Parquet needs pyarrow", "parquet"):
        import pyarrow as pa
        from pyarrow import parquet
    size = gallery.manifest.descriptor_size
    numbers = [(name, pa.float64()) for name in _FIELDS[2:]]
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("file", pa.string()),
            *numbers,
            ("more", pa.string()),
            ("descriptor", pa.list_(pa.float32(), size)),
        ]
    )
    with parquet.ParquetWriter(path, schema) as writer:
        for block, descriptors in gallery.described():
            columns = [pa.array([getattr(tile, name) for tile in block], schema.field(name).type) for name in _FIELDS]
            columns.append(pa.array([_json(tile.more) for tile in block], pa.string()))
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(descriptors.reshape(-1)), size))
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


_WRITERS: dict[str, Callable[[Gallery, Path], None]] = {
    ".csv": _write_csv,
    ".geojson": _write_geojson,
    ".parquet": _write_parquet,
}
