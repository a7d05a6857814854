"""The application: the page, the endpoint, and a limit on what is sent to either."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from imdn_kd.errors import InputError
from imdn_kd.serve.endpoint import error_response, routes
from imdn_kd.serve.limits import Limits
from imdn_kd.serve.models import Models
from imdn_kd.serve.page import CSS, THEME, build_page
from imdn_kd.serve.queue import WorkQueue
from imdn_kd.serve.work import UpscaleResult

_FORM = 2**16  # bytes around the file in a request


def build_app(
    models: Models,
    limits: Limits,
    queue: WorkQueue,
    folder: Path,
    on_done: Callable[[UpscaleResult], None] = lambda _: None,
) -> FastAPI:
    """Make the application.

    Args:
        models: what may be chosen.
        limits: what is refused.
        queue: of all requests.
        folder: for uploads and results; that of Gradio, GRADIO_TEMP_DIR.
        on_done: called with each result.
    """
    # The pages about the API that FastAPI makes ask for scripts of other hosts.
    app = FastAPI(title="imdn_kd", docs_url=None, redoc_url=None, openapi_url=None)
    app.router.routes.extend(routes(models, limits, queue, folder, on_done))
    app.add_middleware(_BodyLimit, most=limits.upload + _FORM)
    page = build_page(models, limits, queue, folder, on_done)
    return gr.mount_gradio_app(
        app,
        page,
        "/",
        show_error=False,
        max_file_size=limits.upload,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=THEME,
        css=CSS,
    )


class _BodyLimit:
    """Refuses requests that are too long, before they are read, and those that do not say how long they are."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            if b"transfer-encoding" in headers:
                error = InputError("say how long the request is (Content-Length)", code="serve.no-length")
                await error_response(error)(scope, receive, send)
                return
            length = int(headers.get(b"content-length", b"0"))
            if length > self._most:
                error = InputError(
                    f"the request has {length / 2**20:.1f} MiB, and this server takes {self._most / 2**20:.4g} MiB at "
                    "most; send a smaller file",
                    code="serve.too-many-bytes",
                )
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
