"""The endpoint for scripts, by HTTP."""

import io
import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest
from PIL import Image

from imdn_kd.serve.queue import stopped
from tests.cli.run import run
from tests.serve.pictures import png_header

httpx = pytest.importorskip("httpx")


@pytest.fixture(scope="module")
def client(served):
    with httpx.Client(base_url=served.address, timeout=120) as client:
        yield client


def post(client, name, data, **query):
    return client.post("/upscale", params=query, files={"file": (name, data)})


def test_a_file_comes_back_as_the_command_writes_it(client, served, pictures, tmp_path, capfd):
    reply = post(client, "photo.jpg", pictures["photo.jpg"].read_bytes(), scale=2)
    run(capfd, "upscale", pictures["photo.jpg"], "-o", tmp_path, "--scale", 2, "--engine", "torch")
    assert (reply.status_code, reply.content) == (200, (tmp_path / "photo.jpg").read_bytes())
    assert reply.headers["content-type"] == "image/jpeg"
    assert 'filename="photo_x2.jpg"' in reply.headers["content-disposition"]
    assert served.made[-1].size == (40, 62)


@pytest.mark.parametrize("fields", [{"size": "40x50"}, {"fit": "40x50"}, {"model": "imdn_rtc_x2"}])
def test_options_may_be_in_the_form_too(client, pictures, fields):
    data = pictures["photo.jpg"].read_bytes()
    reply = client.post("/upscale", params={"format": "png"}, data=fields, files={"file": ("photo.jpg", data)})
    with Image.open(io.BytesIO(reply.content)) as image:
        assert image.format == "PNG"
        assert image.size == {"size": (40, 50), "fit": (40, 25), "model": (62, 40)}[next(iter(fields))]


def test_models_and_limits_are_listed(client):
    found = client.get("/models").json()
    assert {"name": "plain_m_x2", "scale": 2} in found["models"]
    assert found["default"] == "best"
    assert found["limits"] == {"bytes": 2**20, "pixels": 200_000_000, "waiting": 19}


@pytest.mark.parametrize(
    ("name", "data", "query", "status", "code"),
    [
        ("bomb.png", png_header(30000, 30000), {}, 413, "serve.too-many-pixels"),
        ("text.png", b"no picture", {}, 422, "image.unknown-format"),
        ("empty.png", b"", {}, 422, "image.empty"),
        ("../../etc/passwd", b"", {}, 422, "image.empty"),
        ("x" * 400 + ".png", b"", {}, 422, "image.empty"),
        ("long.png", bytes(2**20 + 1), {}, 413, "serve.too-many-bytes"),
        ("longer.png", bytes(2**21), {}, 413, "serve.too-many-bytes"),
        ("dot.png", None, {"scale": "big"}, 422, "serve.option"),
        ("dot.png", None, {"scale": "0.5"}, 422, "serve.option"),
        ("dot.png", None, {"size": "9" * 5000 + "x3"}, 422, "serve.option"),
        ("dot.png", None, {"speed": "9"}, 422, "serve.option"),
        ("dot.png", None, {"scale": "2", "size": "4x4"}, 422, "size.impossible"),
        ("dot.png", None, {"scale": "inf"}, 422, "size.impossible"),
        ("dot.png", None, {"scale": "1e200"}, 422, "size.too-large"),
        ("dot.png", None, {"size": "99999x99999"}, 413, "serve.too-many-pixels"),
        ("dot.png", None, {"model": "/etc/passwd"}, 422, "serve.no-model"),
        ("dot.png", None, {"format": "gif"}, 422, "image.unwritable-format"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(client, served, pictures, name, data, query, status, code):
    reply = post(client, name, pictures["dot.png"].read_bytes() if data is None else data, **query)
    found = reply.json()
    assert (reply.status_code, found["code"]) == (status, code), found
    assert "\n" not in found["error"]
    assert str(served.folder) not in found["error"]
    assert "tmp" not in found["error"]


def test_a_file_may_be_called_as_the_folder_of_results(client, pictures):
    assert post(client, "result", pictures["dot.png"].read_bytes(), scale="2").status_code == 200


def test_what_nobody_foresaw_is_json_too(client, pictures, monkeypatch, capfd):
    endpoint = pytest.importorskip("imdn_kd.serve.endpoint")

    def fail(*_):
        raise OSError(28, "No space left on device", "/secret")

    monkeypatch.setattr(endpoint, "Task", fail)
    reply = post(client, "dot.png", pictures["dot.png"].read_bytes())
    assert (reply.status_code, reply.json()["code"]) == (500, "unexpected")
    assert "secret" not in reply.text
    assert "/secret" in capfd.readouterr().err


def test_requests_without_a_file_or_length_are_refused(client):
    assert client.post("/upscale").json()["code"] == "serve.no-file"
    assert client.post("/upscale", data={"file": "text"}).json()["code"] == "serve.no-file"
    form = {"content-type": "multipart/form-data"}
    assert client.post("/upscale", headers=form, content=b"no boundary").json()["code"] == "serve.form"
    assert client.post("/upscale", headers=form, content=iter([b"a", b"b"])).json()["code"] == "serve.no-length"


def test_twenty_at_once_are_done_one_after_the_other_and_the_next_is_turned_away(client, served, pictures):
    data, gate = pictures["photo.jpg"].read_bytes(), threading.Event()
    with ThreadPoolExecutor(21) as pool:
        served.queue._pool.submit(gate.wait)  # the worker is held until all have come
        replies = [pool.submit(post, client, "photo.jpg", data, scale=2, model="fast") for _ in range(20)]
        until(lambda: len(served.queue._entries) == 20)
        late = post(client, "photo.jpg", data)
        assert (late.status_code, late.json()["code"]) == (503, "serve.busy")
        assert int(late.headers["retry-after"]) > 0
        gate.set()
        replies = [reply.result() for reply in replies]
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.content for reply in replies}) == 1
    assert post(client, "photo.jpg", data, scale=1).status_code == 200


def test_a_client_that_vanishes_stops_its_work_and_leaves_no_files(client, served, pictures, monkeypatch):
    begun, ended, before = threading.Event(), [], files_in(served.folder)

    def work(self, stop):
        begun.set()
        ended.append(stop.wait(60))
        raise stopped()

    file = {"file": ("a.png", pictures["dot.png"].read_bytes())}
    request = client.build_request("POST", "/upscale", files=file)
    with monkeypatch.context() as patch:
        patch.setattr("imdn_kd.serve.work.Task.do", work)
        connection = HTTPConnection(request.url.host, request.url.port)
        connection.request("POST", "/upscale", request.read(), dict(request.headers))
        until(begun.is_set)
        connection.close()
        until(lambda: ended == [True])
    until(lambda: files_in(served.folder) <= before)  # some of former requests may still be removed
    assert client.post("/upscale", files=file).status_code == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_of_the_documentation(served, pictures, tmp_path):
    shutil.copy(pictures["photo.jpg"], tmp_path)
    text = (Path(__file__).resolve().parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    commands = re.findall(r"^curl .*", text.replace("1920x1080", "96x54"), re.MULTILINE)
    for command in commands:
        words = shlex.split(command.replace("http://127.0.0.1:7860", served.address))
        subprocess.run(words, cwd=tmp_path, check=True)
    sizes = {path.name: Image.open(path).size for path in tmp_path.glob("large.*")}
    assert sizes == {"large.jpg": (62, 40), "large.png": (96, 54)}


def test_the_page_is_no_way_around_the_limits(client, served):
    """Gradio would also fetch a picture from an address that a client gives, of any size."""
    assert client.get("/gradio_api/info").json()["named_endpoints"] == {}
    config = client.get("/config").json()
    (number,) = [each["id"] for each in config["dependencies"] if len(each["inputs"]) == 7]
    for path, said in (
        ("http://127.0.0.1:9/a.png", "upload the picture itself"),
        (str(served.folder / "gone.png"), "upload it again"),
        ("/etc/hostname", "error"),
    ):
        picture = {"path": path, "meta": {"_type": "gradio.FileData"}}
        data = [picture, "best", "scale", 2, None, None, "as the picture"]
        session = {"session_hash": said}
        client.post("/gradio_api/queue/join", json={"data": data, "fn_index": number, **session})
        with client.stream("GET", "/gradio_api/queue/data", params=session) as stream:
            messages = "".join(stream.iter_text())
        assert said in messages
        assert '"success":false' in messages


def files_in(folder):
    return {Path(path, name) for path, _, names in os.walk(folder) for name in names}


def until(condition):
    """Wait for what a server does soon."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("did not happen within a minute")
