"""`imdn-kd serve`."""

import os
import signal
import socket
import sys
import tempfile
import threading
from urllib.request import urlopen

import pytest

from imdn_kd.archs import IMDN
from imdn_kd.inference.model_file import ModelFile, save_model
from tests.cli.run import run
from tests.serve.test_endpoint import until


@pytest.fixture
def port():
    """One that is free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_a_server_offers_model_files_and_ends_by_ctrl_c_without_leaving_anything(port, tmp_path, capfd, monkeypatch):
    pytest.importorskip("gradio", reason="needs the extra web")
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # so that what the command sets is taken back
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    save_model(tmp_path / "mine.safetensors", ModelFile(IMDN(num_feat=8, num_block=1, upscale=3)))
    found = []

    def visit():
        def answers():
            try:
                with urlopen(f"http://127.0.0.1:{port}/models") as reply:
                    found.append(reply.read())
            except OSError:
                return False
            return True

        try:
            until(answers)
            found.extend((tmp_path / "temporary").iterdir())
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    visitor = threading.Thread(target=visit)
    visitor.start()
    result = run(capfd, "serve", "--port", port, "--model", tmp_path / "mine.safetensors", "--engine", "torch")
    visitor.join()
    assert b'{"name":"mine","scale":3}' in found[0]
    assert str(tmp_path).encode() not in found[0]
    assert len(found) == 2  # the folder of this server
    assert result.code == 130
    assert result.out == f"http://127.0.0.1:{port} (Ctrl-C ends it)\n"
    assert result.err == "imdn-kd: stopped; uploads and results are removed\n"
    assert not [*(tmp_path / "temporary").iterdir()]


def test_addresses_that_cannot_be_had(port, capfd):
    pytest.importorskip("gradio", reason="needs the extra web")
    with socket.create_server(("127.0.0.1", port)):
        for options in (("--port", port), ("--host", "203.0.113.7"), ("--host", "no.such.invalid")):
            result = run(capfd, "serve", *options)
            assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result.err
            assert "--host or --port" in result.err


@pytest.mark.parametrize(
    "options", [("--max-upload", "big"), ("--port", "70000"), ("--model", "no_such"), ("--engine", "steam")]
)
def test_options_are_checked_before_anything_is_served(options, capfd):
    result = run(capfd, "serve", *options)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)


def test_without_the_extra_it_says_what_to_install(capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = run(capfd, "serve")
    assert (result.code, result.out) == (2, "")
    assert result.err == 'imdn-kd: the page needs Gradio; pip install ".[web]" in the folder of imdn_kd\n'
