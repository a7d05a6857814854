"""What tests of the page share."""

from __future__ import annotations

from pathlib import Path

import pytest

from imdn_kd.web.runtime import FILES


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the names of the runtime's files."""
    folder = tmp_path_factory.mktemp("onnxruntime-web")
    (folder / "dist").mkdir()
    for name in (*FILES, "ort.js"):
        (folder / "dist" / name).write_text(name)
    (folder / "package.json").write_text('{"version": "9.9.9"}')
    return folder
