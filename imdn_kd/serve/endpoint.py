"""The HTTP endpoint for scripts: POST /upscale takes a picture file and returns one; GET /models lists models."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from imdn_kd.config.problems import in_words
from imdn_kd.errors import InputError
from imdn_kd.inference.sizes import parse_size
from imdn_kd.serve.limits import Limits
from imdn_kd.serve.models import Models
from imdn_kd.serve.queue import STOPPED, WorkQueue
from imdn_kd.serve.work import Task, UpscaleRequest, UpscaleResult

_STATUS = {
    "serve.busy": 503,
    STOPPED: 503,
    "inference.out-of-memory": 503,
    "serve.too-many-bytes": 413,
    "serve.too-many-pixels": 413,
    "unexpected": 500,
}
"""HTTP status of errors, by code; 422 is that of the others."""

_LONGEST_NAME = 200  # bytes of the name of a file; file systems allow 255, and results have longer ones
_LOOK_EVERY = 0.25  # seconds between looks whether a client is still there

SizeText = Annotated[tuple[int, int], BeforeValidator(parse_size)]


class _Options(BaseModel):
    """The query of a request."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    scale: float | None = Field(None, ge=1)
    size: SizeText | None = None
    fit: SizeText | None = None
    format: str | None = None


def routes(
    models: Models, limits: Limits, queue: WorkQueue, folder: Path, on_done: Callable[[UpscaleResult], None]
) -> list[Route]:
    """The routes of the endpoint; arguments as those of `imdn_kd.serve.page.build_page`."""

    async def upscale(request: Request) -> Response:
        queue.check_room()  # before the upload is taken
        own = Path(tempfile.mkdtemp(dir=folder))
        try:
            source, asked = await _read(request, own / "given")
            task = await asyncio.to_thread(Task, source, own / "result", asked, models, limits)
            watch = asyncio.create_task(_stop_if_gone(request, queue, own))
            try:
                result = await queue.do(task.do, own)
            finally:
                watch.cancel()
            on_done(result)
        except BaseException:
            shutil.rmtree(own, ignore_errors=True)
            raise
        after = BackgroundTask(shutil.rmtree, own, ignore_errors=True)
        return FileResponse(result.path, filename=result.path.name, background=after)

    async def list_models(_: Request) -> Response:
        found = [{"name": name, "scale": scale} for name, scale in models.scales.items()]
        return JSONResponse(
            {
                "models": found,
                "default": models.default,
                "limits": {"bytes": limits.upload, "pixels": limits.pixels, "waiting": limits.waiting},
            }
        )

    return [Route("/upscale", _told(upscale), methods=["POST"]), Route("/models", list_models)]


def error_response(error: InputError) -> JSONResponse:
    """An error as JSON: what is wrong in a line, and its code."""
    status = _STATUS.get(error.code, 422)
    headers = {"Retry-After": "10"} if error.code == "serve.busy" else None
    return JSONResponse({"error": " ".join(error.lines), "code": error.code}, status, headers)


def _told(handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        try:
            response: Response = await handler(request)
        except InputError as error:
            return error_response(error)
        except Exception:
            traceback.print_exc()
            return error_response(InputError("unexpected error; the log of the server has it", code="unexpected"))
        return response

    return handle


async def _read(request: Request, folder: Path) -> tuple[Path, UpscaleRequest]:
    """The uploaded file, written to the folder, and the options of a request, from its query or its form."""
    try:
        async with request.form(max_files=1, max_fields=20) as form:
            fields = {**request.query_params, **form}
            file = fields.pop("file", None)
            if not isinstance(file, UploadFile):
                raise InputError(
                    "the request has no file; send it in a form, as curl -F file=@photo.jpg does", code="serve.no-file"
                )
            asked = _read_options(fields)
            folder.mkdir()
            path = folder / _safe_name(file.filename)
            with path.open("wb") as target:
                await asyncio.to_thread(shutil.copyfileobj, file.file, target)
    except HTTPException as error:
        raise InputError(f"the form cannot be read: {error.detail}", code="serve.form") from error
    return path, asked


def _read_options(fields: Mapping[str, Any]) -> UpscaleRequest:
    try:
        options = _Options.model_validate(fields)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        raise InputError(f"{'.'.join(map(str, found['loc']))}: {in_words(found)}", code="serve.option") from error
    return UpscaleRequest(**dict(options))


def _safe_name(name: str | None) -> str:
    """The name of a file without folders and without what could not be a name here."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    kept = "".join(letter for letter in last if letter.isprintable()).strip(". ")
    stem, dot, suffix = kept.rpartition(".")
    stem = stem if dot else suffix
    short = stem.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return f"{short or 'picture'}{dot}{suffix[:10] if dot else ''}"


async def _stop_if_gone(request: Request, queue: WorkQueue, owner: object) -> None:
    """Stop the work of a client that has vanished."""
    while not await request.is_disconnected():
        await asyncio.sleep(_LOOK_EVERY)
    queue.stop(owner)
