"""How Sphinx builds these pages; the reference is written anew from the sources at each build."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import tables  # noqa: E402  (beside this file)

import cartograd  # noqa: E402

project = "Cartograd"
author = "the Cartograd maintainers"
copyright = "the Cartograd maintainers"
release = version = cartograd.__version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "pydata_sphinx_theme"
html_title = "Cartograd"
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
}


def setup(app: Sphinx) -> None:
    """Write the pages that come from the sources before Sphinx looks for pages."""
    tables.write_generated(HERE)
