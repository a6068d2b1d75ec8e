"""GDAL's virtual maps (.vrt), an XML list of the sheets that make one map: what of one is let through.

A virtual map may name addresses, databases, raw bytes of any file and code in Python. Here it may name map files in
its own folder, and say how they lie, are warped and scaled.
"""

import os
from io import BytesIO
from pathlib import Path
from shlex import quote
from xml.etree import ElementTree

from geodtr.runtime.errors import DataError
from geodtr.runtime.files import readable

MAX_BYTES = 64 << 20
"""Of a list of some 30,000 sheets with three bands."""

_DEEPEST = 16

_SUBCLASSES = frozenset({"VRTWarpedDataset", "VRTSourcedRasterBand", "VRTWarpedRasterBand"})

_FILES = frozenset({"SourceFilename", "SourceDataset"})
"""Elements whose text names a file."""

_ELEMENTS = """
    VRTDataset SRS GeoTransform GCPList GCP BlockXSize BlockYSize OverviewList Overview MaskBand
    VRTRasterBand ColorInterp ColorTable Entry NoDataValue HideNoDataValue Offset Scale
    SimpleSource ComplexSource AveragedSource NoDataSource SourceBand SourceProperties SrcRect DstRect NODATA
    UseMaskBand ScaleOffset ScaleRatio LUT ColorTableComponent Exponent SrcMin SrcMax DstMin DstMax Clamp
    GDALWarpOptions WarpMemoryLimit ResampleAlg WorkingDataType Option Options Transformer ApproxTransformer MaxError
    BaseTransformer GenImgProjTransformer SrcGeoTransform SrcInvGeoTransform DstGeoTransform DstInvGeoTransform
    ReprojectTransformer ReprojectionTransformer SourceSRS TargetSRS BandList BandMapping SrcNoDataReal SrcNoDataImag
    DstNoDataReal DstNoDataImag SrcAlphaBand DstAlphaBand Cutline CutlineBlendDist
    """
_ALLOWED = _FILES | set(_ELEMENTS.split())
"""What gdalbuildvrt, gdal_translate, gdalwarp and QGIS write for maps of sheets."""

_LEFT_OUT = frozenset({"Metadata", "Histograms", "Description", "CategoryNames", "UnitType"})
"""What changes no pixel, and may name files."""


def sheets_remedy(folder: Path) -> str:
    """A sentence for the user of a folder that may hold sheets of one map."""
    name = quote(str(folder))
    return f"Make one map of sheets: gdalbuildvrt {name}.vrt {name}/*.tif, or rio merge {name}/*.tif {name}.tif"


def local_vrt(path: Path) -> tuple[bytes, list[Path]]:
    """The virtual map with absolute paths, and the files that it names. The files themselves are not looked at.

    Raises DataError when it is no such XML, is larger than MAX_BYTES, holds an element that is not known here, or
    names a file outside its folder.
    """
    with readable(DataError, path):
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES >> 20} MB. Split the list of sheets.")
        content = path.read_bytes()
    try:
        root = _parse(content, path)
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not a virtual map of GDAL ({error}). Write it again: gdalbuildvrt") from None
    if root.tag != "VRTDataset":
        raise DataError(f"{path} is not a virtual map of GDAL. Write it again: gdalbuildvrt")
    sheets = dict[Path, None]()
    for element in root.iter():
        for child in [each for each in element if each.tag in _LEFT_OUT]:
            element.remove(child)
        kind = element.get("subClass")
        if element.tag not in _ALLOWED or (kind is not None and kind not in _SUBCLASSES):
            what = element.tag if kind is None else f"{element.tag} {kind}"
            raise DataError(
                f"{path} has the element {what[:40]!r}, which a list of sheets does not need. Write the map as a file: "
                f"rio convert {quote(str(path))} NEW.tif"
            )
        if element.tag in _FILES:
            sheet = _sheet(element, path)
            sheets[sheet] = None
            element.attrib.clear()
            element.set("relativeToVRT", "0")
            element.text = str(sheet)
    return ElementTree.tostring(root, encoding="utf-8"), list(sheets)


def _parse(content: bytes, path: Path) -> ElementTree.Element:
    """The root element. Depth is limited while it is read: writing a deep tree would recurse as deep."""
    depth = 0
    root: ElementTree.Element | None = None
    for event, element in ElementTree.iterparse(BytesIO(content), ("start", "end")):
        root = element if root is None else root
        depth += 1 if event == "start" else -1
        if depth > _DEEPEST:
            raise DataError(f"{path} is nested deeper than {_DEEPEST} elements; no list of sheets is.")
    if root is None:
        raise ElementTree.ParseError("no element")
    return root


def _sheet(element: ElementTree.Element, path: Path) -> Path:
    """The file that an element names, by an absolute path."""
    folder = path.absolute().parent
    named = (element.text or "").strip()
    relative = any(name.lower() == "relativetovrt" and value == "1" for name, value in element.attrib.items())
    sheet = Path(os.path.normpath(folder / named if relative else Path(named).absolute()))
    if not named or "\0" in named or not sheet.is_relative_to(os.path.normpath(folder)):
        raise DataError(
            f"{path} names the sheet {named[:100]!r}, which is no file in its folder. Copy the sheets there, and write "
            "the list there: gdalbuildvrt map.vrt *.tif"
        )
    return sheet
