"""What sheets of images have in common: a title on paper, images scaled to fit, rows spread over a set.

Put together by Pillow, pixel by pixel; matplotlib is not needed.
"""

from PIL import Image, ImageDraw, ImageFont

from geodtr.export.plots.colours import LIGHT
from geodtr.runtime.files.foreign_text import visible

INK, FAINT, EDGE, PAPER = LIGHT["ink"], LIGHT["faint"], LIGHT["edge"], LIGHT["paper"]


def new_sheet(width: int, height: int, margin: int, title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty sheet in RGB with its title, and what draws on it."""
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, margin), visible(title), INK, font(16))
    return sheet, draw


def font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    """Pillow's own."""
    return ImageFont.load_default(size)


def fitted(image: Image.Image, width: int, height: int | None = None) -> Image.Image:
    """The image scaled to fit `width` and, where that is given, `height`; its proportions are kept."""
    scale = width / image.width if height is None else min(width / image.width, height / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX)


def spread(total: int, count: int) -> list[int]:
    """`count` row numbers spread evenly over `total`, so that a sheet shows the set and not its best."""
    count = min(count, total)
    return sorted({row * (total - 1) // max(count - 1, 1) for row in range(count)})
