"""Cross-view geo-localisation: train GeoDTR, export it to engines, localise images with them."""

from pkgutil import extend_path

# In a checkout this folder, which holds no sub-packages, hides the installed package: theirs are found as well.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
