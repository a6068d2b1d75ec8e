"""Where the checkout's folders are, whichever folder a test lies in."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
SHARED = Path(os.environ.get("GEODTR_SHARED", ROOT.parent / "shared"))
"""Real images and official figures, which a public clone lacks."""
