"""What GPX 1.1 demands of the parts that are written."""

import xml.etree.ElementTree as ET

NAMESPACE = "{http://www.topografix.com/GPX/1/1}"
WPT_ORDER = (
    *("ele", "time", "magvar", "geoidheight", "name", "cmt", "desc", "src", "link", "sym", "type", "fix", "sat"),
    *("hdop", "vdop", "pdop", "ageofdgpsdata", "dgpsid", "extensions"),
)
"""The sequence of wptType in the schema of GPX 1.1."""


def check_gpx(content: bytes) -> ET.Element:
    """What the schema demands of the parts that we write."""
    root = ET.fromstring(content)
    assert root.tag == f"{NAMESPACE}gpx"
    assert root.attrib["version"] == "1.1"
    assert root.attrib["creator"]
    assert [child.tag.removeprefix(NAMESPACE) for child in root] == sorted(
        (child.tag.removeprefix(NAMESPACE) for child in root), key=("metadata", "wpt", "rte", "trk").index
    )
    for point in (*root.iter(f"{NAMESPACE}wpt"), *root.iter(f"{NAMESPACE}trkpt")):
        assert set(point.attrib) == {"lat", "lon"}
        assert -90 <= float(point.attrib["lat"]) <= 90
        assert -180 <= float(point.attrib["lon"]) < 180
        order = [WPT_ORDER.index(child.tag.removeprefix(NAMESPACE)) for child in point]
        assert order == sorted(set(order))
    return root
