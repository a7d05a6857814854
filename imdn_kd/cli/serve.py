"""`imdn-kd serve`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from imdn_kd.cli import shared as opt
from imdn_kd.cli.screen import complain, say

if TYPE_CHECKING:
    from imdn_kd.serve.work import UpscaleResult


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Offer this model file beside the students; several may be given."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in, whoever they are.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any that is free.")] = 7860,
    max_upload: Annotated[str, typer.Option(metavar="BYTES", help="Largest upload.")] = "64MiB",
    max_megapixels: Annotated[
        float, typer.Option(min=0.01, max=1000, help="Most megapixels of a picture, and of its result.")
    ] = 200.0,
    max_queue: Annotated[int, typer.Option(min=0, help="Most requests that wait; one is worked on at a time.")] = 20,
    keep: Annotated[int, typer.Option(min=1, help="Minutes after which uploads and results are removed.")] = 30,
    device: opt.Device = "auto",
    precision: opt.PrecisionOption = opt.Precision.auto,
    engine: opt.EngineOption = "auto",
    memory: opt.Memory = None,
    imports: opt.Imports = None,
    quiet: opt.Quiet = False,
) -> None:
    """Serve a web page that upscales pictures, and an HTTP endpoint for scripts; both work without the internet.

    Visitors choose a student and a scale, compare the result with bicubic interpolation, and download the file that
    `imdn-kd upscale` would write. Only this machine can reach the page, unless --host says otherwise; there are no
    passwords. Ctrl-C ends it and removes all uploads and results.

    imdn-kd serve

    imdn-kd serve --model my_student.safetensors --port 8000 --max-megapixels 50
    """
    from imdn_kd.inference.graph_file import open_model
    from imdn_kd.serve.limits import Limits
    from imdn_kd.serve.models import Models
    from imdn_kd.serve.server import serve as run

    opt.import_own(imports)
    limits = Limits(opt.parse_memory(max_upload), round(max_megapixels * 1e6), max_queue, 60 * keep)
    models = Models(
        [open_model(each) for each in model or []],
        device=device,
        precision=precision.value,
        engine=engine,
        memory=memory,
    )

    def on_done(result: UpscaleResult) -> None:
        if not quiet:
            (height, width), (tall, wide) = result.given, result.size
            say(f"{result.path.name}: {width}x{height} to {wide}x{tall} px, {result.seconds:.2f} s")

    # Where Ctrl-C is ignored, as in the background, the server ends without an exception.
    with suppress(KeyboardInterrupt):
        run(
            models,
            limits,
            host=host,
            port=port,
            on_ready=lambda address: say(f"{address} (Ctrl-C ends it)"),
            on_done=on_done,
        )
    complain("stopped; uploads and results are removed")
    raise typer.Exit(130)
