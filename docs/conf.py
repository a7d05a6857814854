"""Settings of Sphinx, which builds the documentation site: `make docs`.

The pages are the Markdown files of the repository, which read well without a site, too. The home page is README.md; the
list in its section "Documentation" is the navigation, and a page that is not listed fails the build. What is generated
is put into the pages by `pages.py` beside this file.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import imdn_kd  # noqa: E402 - of this checkout, whatever is installed

project = "imdn_kd"
author = "the imdn_kd authors"
version = release = imdn_kd.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "pages"]
root_doc = "README"
source_suffix = {".md": "markdown"}
include_patterns = ["*.md", "docs/**.md", "imdn_kd/zoo/*.md", "datasets/README.md", "experiments/README.md"]
# Folders that Sphinx need not walk through.
FOLDERS = ("datasets", "docs", "experiments", "imdn_kd")
exclude_patterns = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in FOLDERS]
exclude_patterns += ["datasets/[!R]*", "experiments/[!R]*"]
suppress_warnings = ["myst.header"]  # reports of studies begin with headings of the third level

html_theme = "furo"
html_title = f"imdn_kd {version}"
html_static_path = html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

myst_heading_anchors = 4  # by which links within Markdown files find headings, as on code hosts

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "py:obj"  # names in docstrings are links where the reference has them
