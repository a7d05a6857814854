"""`imdn-kd engines`."""

from __future__ import annotations

from typing import Annotated

import typer

from imdn_kd.cli import shared as opt


def engines(
    model: opt.Model = None,
    arch: opt.Arch = None,
    imports: opt.Imports = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Forget which engine was the fastest, for all models.")
    ] = False,
) -> None:
    """Show what can run networks on the CPU, and which of it `--engine auto` takes for a model.

    imdn-kd engines --model imdn_rtc_x4
    """
    from imdn_kd.inference.engines import base, choice, remembered
    from imdn_kd.utils.extras import how_to_install

    if clear:
        print(f"{remembered.forget()}: cleared")
    for name in base.NAMES:
        if name == base.TORCH:
            print(name)
        elif name in base.installed():
            kind = base.engine_kind(name)
            print(f"{name} {kind.version()}: {', '.join(kind.precisions())}")
        else:
            print(f"{name}: not installed")
    if len(base.installed()) < len(base.NAMES):
        print(f"often faster than torch: {how_to_install('deploy')}")
    if model is None:
        return
    from imdn_kd.inference.model_file import load_model

    opt.import_own(imports)
    file = load_model(model, None if arch is None else opt.parse_arch(arch))
    found = choice.measured(file.network.eval(), file.network.info, file.value_range)
    print(f"\n{model}: {found.engine}")
    for name, seconds in found.seconds.items():
        print(f"  {name}: {1000 * seconds:.1f} ms")
