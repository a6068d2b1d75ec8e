"""What schemathesis sends as an image: real ones. Its command line finds this file by SCHEMATHESIS_HOOKS."""

from io import BytesIO

import schemathesis
from hypothesis import strategies as st
from PIL import Image


def _encoded(kind: str, colour: int) -> bytes:
    stream = BytesIO()
    Image.effect_noise((64, 16), colour).convert("RGB").save(stream, kind)
    return stream.getvalue()


for _kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
    schemathesis.openapi.media_type(
        f"image/{_kind.lower()}", st.sampled_from([_encoded(_kind, each) for each in (20, 90)])
    )
schemathesis.openapi.media_type("application/octet-stream", st.sampled_from([_encoded("PNG", 50)]))
