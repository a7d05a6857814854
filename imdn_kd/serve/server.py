"""Running the application until it is stopped."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from imdn_kd.errors import InputError
from imdn_kd.serve.limits import Limits
from imdn_kd.serve.models import Models
from imdn_kd.serve.queue import WorkQueue
from imdn_kd.serve.work import UpscaleResult
from imdn_kd.utils.extras import how_to_install

_PATIENCE = 2  # seconds that connections have to end


def serve(
    models: Models,
    limits: Limits,
    *,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
    on_done: Callable[[UpscaleResult], None],
) -> None:
    """Serve the page and the endpoint; Ctrl-C ends it with a KeyboardInterrupt, once all files are removed.

    Args:
        models: what may be chosen.
        limits: what is refused.
        host: name or address to listen at.
        port: 0 takes any that is free.
        on_ready: called with the address of the page.
        on_done: called with each result.

    Raises:
        InputError: `serve.not-installed`, `serve.address`.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401 - the modules below need it
        import uvicorn
    except ImportError as error:
        raise InputError(f"the page needs Gradio; {how_to_install('web')}", code="serve.not-installed") from error
    with tempfile.TemporaryDirectory(prefix="imdn-kd-serve-") as name, listen(host, port) as listener:
        # Asked for by each component when it is made.
        os.environ["GRADIO_TEMP_DIR"] = name
        from imdn_kd.serve.app import build_app

        queue = WorkQueue(limits.waiting)

        class Server(uvicorn.Server):  # type: ignore[misc]
            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                queue.stop()
                super().handle_exit(sig, frame)

        app = build_app(models, limits, queue, Path(name), on_done)
        config = uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=_PATIENCE)
        shown = f"[{host}]" if ":" in host else host
        on_ready(f"http://{shown}:{listener.getsockname()[1]}")
        try:
            Server(config).run(sockets=[listener])
        finally:
            queue.close()  # before the folder that it writes to is removed


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises InputError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"cannot listen at {host}, port {port} ({reason}); choose another --host or --port", code="serve.address"
        ) from error
