"""A map warped while it is read, where its own rows and columns are not at right angles on the ground."""

from typing import Any

from geodtr.runtime.sources.raster.bands import Bands, alpha_band


def conformal_system(lat: float, lon: float) -> str:
    """A reference system about a place (degrees): right angles everywhere, true metres near it, at the poles too."""
    # Nine decimals are a tenth of a millimetre. The text is kept: other processes warp as this one does.
    return f"+proj=stere +lat_0={lat:.9f} +lon_0={lon:.9f} +k=1 +datum=WGS84 +units=m +no_defs"


def warp(dataset: Any, system: str, bands: Bands) -> Any:
    """The rasterio dataset in the reference system `system`, with an alpha band that marks where it has data.

    Its bands keep their numbers. A palette's numbers, which are no shades, are not interpolated.
    """
    from rasterio.crs import CRS
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    alpha = alpha_band(dataset)
    return WarpedVRT(
        dataset,
        crs=CRS.from_proj4(system),
        resampling=Resampling.bilinear if bands.palette is None else Resampling.nearest,
        **({"add_alpha": True} if alpha is None else {"src_alpha": alpha}),
    )
