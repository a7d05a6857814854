"""A server in this process."""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

import pytest

from imdn_kd.serve.limits import Limits
from imdn_kd.serve.models import Models
from imdn_kd.serve.queue import WorkQueue
from tests.serve.pictures import bombs, good


class Served(NamedTuple):
    """A server that runs, and what it was made of."""

    address: str
    folder: os.PathLike[str]
    queue: WorkQueue
    made: list[object]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    return good(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    return bombs(tmp_path_factory.mktemp("bombs"))


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    pytest.importorskip("gradio", reason="needs the extra web")
    uvicorn = pytest.importorskip("uvicorn")
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        from imdn_kd.serve.app import build_app
        from imdn_kd.serve.server import listen

        limits, made = Limits(upload=2**20, waiting=19), []
        queue = WorkQueue(limits.waiting)
        app = build_app(Models(engine="torch"), limits, queue, folder, made.append)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        with listen("127.0.0.1", 0) as listener:
            thread = threading.Thread(target=server.run, args=[[listener]], daemon=True)
            thread.start()
            yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", folder, queue, made)
            server.should_exit = True
            thread.join()
