"""The page for visitors, made with Gradio: https://www.gradio.app/docs."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from imdn_kd.errors import InputError
from imdn_kd.evaluation.embedded import picture_tag
from imdn_kd.image.io import READABLE, WRITABLE
from imdn_kd.serve.limits import Limits
from imdn_kd.serve.models import BEST, FAST, Models
from imdn_kd.serve.preview import Preview, preview
from imdn_kd.serve.queue import STOPPED, WorkQueue
from imdn_kd.serve.work import Task, UpscaleRequest, UpscaleResult

log = logging.getLogger("imdn_kd")

_SHOWN = {BEST: "best for the scale", FAST: "fastest for the scale"}
_AS_GIVEN = "as the picture"
_SCALE, _SIZE, _FIT = "scale", "size", "fit"

# System fonts: the page asks nothing of other hosts, and little of this one.
THEME = gr.themes.Default(
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"], primary_hue=gr.themes.colors.blue
)
CSS = """
.crops { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 8px 12px; }
.crops div { display: grid; grid-template-columns: 1fr 1fr; gap: 2px; }
.crops figure { margin: 0; }
.crops img { width: 100%; height: auto; image-rendering: pixelated; }
.crops figcaption { font-size: 0.8em; }
"""


def build_page(
    models: Models, limits: Limits, queue: WorkQueue, folder: Path, on_done: Callable[[UpscaleResult], None]
) -> gr.Blocks:
    """Make the page.

    Args:
        models: what visitors may choose.
        limits: what is refused.
        queue: of all requests.
        folder: where results are kept for a while; Gradio's own folder, so that it need not copy them.
        on_done: called with each result.
    """

    async def upscale(
        file: str | None,
        model: str,
        how: str,
        scale: float | None,
        width: float | None,
        height: float | None,
        form: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio finds it
    ) -> list[Any]:
        if file is None:
            raise gr.Error("choose a picture first", print_exception=False)
        if not Path(file).is_file():
            raise gr.Error("the picture was removed after a while; upload it again", print_exception=False)
        shown: list[Preview] = []
        try:
            asked = _read_form(model, how, scale, width, height, form)
            target = folder / secrets.token_hex(8)
            task = await asyncio.to_thread(Task, Path(file), target, asked, models, limits)

            def work(stop: threading.Event) -> UpscaleResult:
                return task.do(
                    stop,
                    lambda part: progress(part, desc="upscaling"),
                    lambda picture, large: shown.append(preview(picture, large)),
                )

            result = await queue.do(
                work, request.session_hash, lambda before: progress(0, desc=f"waiting, {before} before this one")
            )
            pair = await asyncio.to_thread(_save, shown[0], target)
        except InputError as error:
            if error.code == STOPPED:
                return [None, "", "stopped", _no_download()]
            raise gr.Error(str(error), duration=None, print_exception=False) from error
        except Exception as error:
            log.exception("unexpected error")
            raise gr.Error("unexpected error; the log of the server has it", print_exception=False) from error
        on_done(result)
        label = f"Download {result.path.name} ({_amount(result.path.stat().st_size)})"
        return [pair, _crops(shown[0]), _facts(result), gr.DownloadButton(label, value=result.path, interactive=True)]

    async def stop(request: gr.Request) -> None:
        queue.stop(request.session_hash)

    with gr.Blocks(title="imdn_kd", analytics_enabled=False, delete_cache=(min(60, limits.keep), limits.keep)) as page:
        gr.Markdown("## Upscale a picture")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                file = gr.File(
                    label=f"Picture, {_amount(limits.upload)} at most",
                    file_types=sorted(READABLE),
                    height=170,
                    elem_id="file",
                )
                _refuse_addresses(file)
                names = [(_SHOWN.get(name, f"{name} (x{scale})"), name) for name, scale in models.scales.items()]
                model = gr.Dropdown(names, value=models.default, label="Student")
                how = gr.Radio([_SCALE, _SIZE, _FIT], value=_SCALE, label="Result by")
                scale = gr.Number(models.scales[models.default], label="Scale", minimum=1, maximum=32, step=0.5)
                with gr.Row(visible=False) as sides:
                    width = gr.Number(1920, label="Width, px", minimum=1, precision=0, min_width=80)
                    height = gr.Number(1080, label="Height, px", minimum=1, precision=0, min_width=80)
                form = gr.Dropdown([_AS_GIVEN, *_formats()], value=_AS_GIVEN, label="Format")
                with gr.Row():
                    go = gr.Button("Upscale", variant="primary", min_width=120, elem_id="go")
                    halt = gr.Button("Stop", min_width=80)
            with gr.Column(scale=3, min_width=300):
                slider = gr.ImageSlider(
                    label="Bicubic left, student right",
                    type="filepath",
                    interactive=False,
                    buttons=["fullscreen"],
                    max_height=560,
                    elem_id="slider",
                )
                facts = gr.Markdown(elem_id="facts")
                download = gr.DownloadButton("Download", interactive=False, elem_id="download")
                crops = gr.HTML(elem_id="crops")
        private: Any = {"api_visibility": "private"}
        given = [file, model, how, scale, width, height, form]
        shown = [slider, crops, facts, download]
        go.click(_nothing, None, shown, queue=False, show_progress="hidden", **private).then(
            upscale, given, shown, concurrency_limit=None, show_progress_on=[slider], scroll_to_output=True, **private
        )
        halt.click(stop, queue=False, show_progress="hidden", **private)
        page.unload(stop)
        how.change(
            lambda how: (gr.Number(visible=how == _SCALE), gr.Row(visible=how != _SCALE)),
            how,
            [scale, sides],
            queue=False,
            show_progress="hidden",
            **private,
        )
        model.change(models.scales.get, model, scale, queue=False, show_progress="hidden", **private)
    return page.queue(max_size=None, api_open=False)


def _nothing() -> list[Any]:
    """What is shown of a result while there is none."""
    return [None, "", "", _no_download()]


def _no_download() -> gr.DownloadButton:
    return gr.DownloadButton("Download", value=None, interactive=False)


def _refuse_addresses(file: gr.File) -> None:
    """Take only what is uploaded: Gradio would also fetch what a client gives the address of."""
    move = file.async_move_resource_to_block_cache

    async def checked(path: str | Path | None) -> str | None:
        if "://" in str(path):
            raise gr.Error("upload the picture itself, not its address", print_exception=False)
        moved: str | None = await move(path)
        return moved

    file.async_move_resource_to_block_cache = checked


def _read_form(
    model: str, how: str, scale: float | None, width: float | None, height: float | None, form: str
) -> UpscaleRequest:
    chosen = None if form == _AS_GIVEN else form
    if how == _SCALE:
        return UpscaleRequest(model, scale=scale, format=chosen)
    if width is None or height is None:
        raise InputError("give both width and height", code="serve.no-size")
    size = int(height), int(width)
    return (
        UpscaleRequest(model, size=size, format=chosen)
        if how == _SIZE
        else UpscaleRequest(model, fit=size, format=chosen)
    )


def _formats() -> list[str]:
    """One name for each format that can be written."""
    return sorted({suffix.lstrip(".") for suffix in WRITABLE} - {"jpeg", "tif", "dib"})


def _save(shown: Preview, folder: Path) -> tuple[str, str]:
    paths = []
    for name, image in (("bicubic.jpg", shown.bicubic), ("student.jpg", shown.model)):
        image.save(folder / name, quality=95, subsampling=0)
        paths.append(str(folder / name))
    return paths[0], paths[1]


def _crops(shown: Preview) -> str:
    """Pairs of crops, bicubic and student, which the browser shows larger."""
    pairs = []
    for crop in shown.crops:
        place = f"at {crop.left}, {crop.top} px"
        figures = (
            f"<figure>{picture_tag(pixels, f'{name}, {place}')}<figcaption>{escape(name)}</figcaption></figure>"
            for name, pixels in (("bicubic", crop.bicubic), ("student", crop.model))
        )
        pairs.append(f"<div>{''.join(figures)}</div>")
    return f'<div class="crops">{"".join(pairs)}</div>'


def _facts(result: UpscaleResult) -> str:
    """What was done, one line; and what the result does not hold."""
    (height, width), (tall, wide) = result.given, result.size
    models = " and ".join(dict.fromkeys(run.model for run in result.networks))
    how = f"{models} in {result.networks[0].engine}" if models else "no network, since it does not grow"
    rate = tall * wide / 1e6 / max(result.seconds, 1e-9)
    line = (
        f"{width}x{height} to {wide}x{tall} px by {how}: {result.seconds:.2f} s, {rate:.2g} MP/s, "
        f"{_amount(result.memory)} of memory at most"
    )
    return f"{line}\n\nNot in the result: {', '.join(result.left_out)}" if result.left_out else line


def _amount(count: int) -> str:
    """Bytes as people say them."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{max(1, round(count / 1024))} KiB"
