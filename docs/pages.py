"""What the documentation site has beside the text of its pages: navigation, option reference and API reference.

On a code host the pages show what stands in them: a list of links, the command that prints the options, names.
"""

from __future__ import annotations

import inspect
import pydoc
import re
from functools import partial
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from imdn_kd.config.options import Options

BELOW = {
    "docs/data": "datasets/README",
    "docs/studies": "docs/studies/*/*",
    "docs/training": "experiments/README",
    "docs/zoo": "imdn_kd/zoo/*",
}
"""Pages that are listed below another one, as patterns."""

DEMO = "demo/index.html"
"""In the site: the page of `imdn-kd export --to web`, if it was written there before the site is built."""

_INDEX = """<!doctype html><meta charset="utf-8"><title>imdn_kd</title>
<meta http-equiv="refresh" content="0; url=README.html"><a href="README.html">imdn_kd</a>
"""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register what is done to pages; called by Sphinx."""
    app.connect("source-read", _complete)
    app.connect("autodoc-process-docstring", _as_rest, priority=400)  # before napoleon
    app.connect("build-finished", _lead_home)
    return {"version": "1", "parallel_read_safe": True}


def _complete(app: Sphinx, docname: str, source: list[str]) -> None:
    text = source[0]
    text = re.sub(r"^<!-- imdn-kd options (.+) -->$", _options, text, flags=re.MULTILINE)
    if docname == "docs/reference/api":
        text = re.sub(r"^- `(imdn_kd[\w.]*)`$", _documented, text, flags=re.MULTILINE)
    if docname == "docs/browser" and Path(app.outdir, DEMO).is_file():
        text = text.replace("<!-- demo -->", f'<p><a href="../{DEMO}">Try it with plain_m_x4.</a></p>')
    if docname == "README":
        text += _navigation(text)
    if docname in BELOW:
        text += f"\n```{{toctree}}\n:hidden:\n:glob:\n\n/{BELOW[docname]}\n```\n"
    source[0] = re.sub(r"\[([^\]]+)\]\(([^)#:]+)\)", partial(_unless_folder, Path(app.srcdir, docname).parent), text)


def _unless_folder(page: Path, found: re.Match[str]) -> str:
    """A link, or its text alone where it leads to a folder, which code hosts list and the site does not."""
    return found[1] if (page / found[2]).is_dir() else found[0]


def _as_rest(_: Sphinx, kind: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Docstrings are Markdown: an indented block is code, and `|x|` an absolute value, no substitution."""
    text = "\n".join(lines).replace("|", r"\|")
    # After a line that is neither indented, nor an item of a list, nor the head of a section such as Args.
    text = re.sub(r"^((?!- )\S.*\n)\n(?= {4}\S)", r"\1\n::\n\n", text, flags=re.MULTILINE)
    lines[:] = text.split("\n")


def _options(found: re.Match[str]) -> str:
    """What `imdn-kd options` prints, without its first heading."""
    from typer.testing import CliRunner

    from imdn_kd.cli import app

    result = CliRunner().invoke(app, ["options", *found[1].split()], catch_exceptions=False)
    if result.exit_code:
        raise ValueError(f"{found[0]}: {result.output}")
    return str(result.output).partition("\n")[2]


def _documented(found: re.Match[str]) -> str:
    """The directive of autodoc for a module, a class, a function or another value."""
    name = found[1]
    value = pydoc.locate(name)
    if value is None:
        raise ValueError(f"docs/reference/api.md: there is no {name}")
    options = []
    if inspect.ismodule(value):
        kind, options = "module", ["members", "imported-members"]
    elif inspect.isclass(value):
        # Those of option files stand in the option reference.
        kind, options = "class", [] if issubclass(value, Options) else ["members"]
    else:
        kind = "function" if inspect.isroutine(value) else "data"
    lines = [f".. auto{kind}:: {name}", *(f"   :{option}:" for option in options)]
    return "\n".join(["```{eval-rst}", *lines, "```"])


def _navigation(text: str) -> str:
    """Lists of pages for the side bar: a group for each heading of the section."""
    section = re.search(r"^## Documentation\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    if section is None:
        raise ValueError("README.md: has no section 'Documentation', from which the navigation is made")
    parts = []
    for group in re.split(r"^### ", section[1], flags=re.MULTILINE):
        caption, _, body = group.partition("\n")
        pages = re.findall(r"\]\((\S+)\.md\)", body)
        if pages:
            entries = "\n".join(pages)
            parts.append(
                f"\n```{{toctree}}\n:hidden:\n:caption: {caption.strip() or 'Documentation'}\n\n{entries}\n```\n"
            )
    return "".join(parts)


def _lead_home(app: Sphinx, error: Exception | None) -> None:
    """Web servers look for index.html."""
    if error is None and app.builder.format == "html":
        (Path(app.outdir) / "index.html").write_text(_INDEX, encoding="utf-8")
