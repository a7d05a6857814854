"""The documentation site, as `make docs` builds it: no warnings, no dead links, every public name described."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import imdn_kd
from tests.test_readme import PAGES, ROOT, blocks

pytestmark = [pytest.mark.slow, pytest.mark.processes]


class Page(HTMLParser):
    """What an HTML page leads to, and where others can lead into it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.anchors |= {value for key, value in attrs if key == "id"}
        self.links += [value for key, value in attrs if key in ("href", "src") and value and tag != "use"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q", "-c", "docs", ".", folder]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (built.returncode, built.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_of_the_repository_is_there(site):
    expected = {Path(name).with_suffix(".html") for name in PAGES}

    assert expected <= {path.relative_to(site) for path in site.rglob("*.html")}
    assert (site / "index.html").is_file()


def test_no_link_is_dead(site, pages):
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            inside = not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors
            if not parts.scheme and not (target.exists() and inside):
                dead.append(f"{path.relative_to(site)}: {link}")

    assert sum(len(page.links) for page in pages.values()) > 1000
    assert not dead


def public_names() -> dict[str, object]:
    """What `imdn_kd`, its losses and its networks announce, and what examples import, by full names."""
    names = {f"imdn_kd.{name}" for name in imdn_kd.__all__ if name != "__version__"}
    for package in ("imdn_kd.losses", "imdn_kd.archs"):
        names |= {f"{package}.{name}" for name in importlib.import_module(package).__all__}
    codes = [block.values[0] for block in blocks("python")]
    codes += [path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py")]
    for node in (node for code in codes for node in ast.walk(ast.parse(code))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("imdn_kd") and node.module != "imdn_kd.cli":
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name: getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names}


def test_every_public_name_is_described(site):
    text = (site / "docs/reference/api.html").read_text(encoding="utf-8")
    described = set(re.findall(r'id="(?:module-)?(imdn_kd[\w.]*)"', text))
    public = public_names()
    by_value = {id(public.get(name)) for name in described}

    assert len(public) > 50
    # One place is enough for what can be imported from two.
    assert not sorted(name for name, value in public.items() if name not in described and id(value) not in by_value)
    assert not sorted(name for name, value in public.items() if not inspect.getdoc(value))


def test_the_reference_has_what_commands_print(site):
    for kind, key in (("train", "grad_clip"), ("test", "save_img"), ("prepare", "exclude_like"), ("study", "seeds")):
        assert f">{key}<" in (site / f"docs/reference/options_{kind}.html").read_text(encoding="utf-8")
    assert "MimicLoss" in (site / "docs/reference/objectives.html").read_text(encoding="utf-8")
