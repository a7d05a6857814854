"""The command line: one file a command; what a command needs is imported when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import typer
from typer.main import get_command

from imdn_kd import __version__
from imdn_kd.cli.benchmark import benchmark
from imdn_kd.cli.cache_teacher import cache_teacher
from imdn_kd.cli.compare import compare
from imdn_kd.cli.doctor import doctor
from imdn_kd.cli.engines import engines
from imdn_kd.cli.export import export
from imdn_kd.cli.init import init
from imdn_kd.cli.interrupts import Interrupts
from imdn_kd.cli.options import options
from imdn_kd.cli.prepare import prepare
from imdn_kd.cli.profile import profile
from imdn_kd.cli.screen import complain, say
from imdn_kd.cli.serve import serve
from imdn_kd.cli.study import study
from imdn_kd.cli.taps import taps
from imdn_kd.cli.train import train
from imdn_kd.cli.upscale import upscale
from imdn_kd.cli.verify import verify
from imdn_kd.cli.zoo import zoo
from imdn_kd.errors import InputError

# Looking for plugins of pydantic reads the metadata of every installed package, at each start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

app = typer.Typer(
    name="imdn-kd",
    help="Super-resolution with small distilled networks: enlarge images, train and distil, measure, prepare data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
commands = (
    init,
    train,
    study,
    cache_teacher,
    taps,
    upscale,
    serve,
    benchmark,
    compare,
    profile,
    engines,
    export,
    prepare,
    verify,
    doctor,
)
for command in commands:
    app.command()(command)
app.add_typer(options, name="options")
app.add_typer(zoo, name="zoo")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"imdn-kd {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of `imdn-kd`: a line for each thing the user can mend and exit code 2; 128 + n after signal n."""
    with Interrupts() as interrupts:
        code = _run()
    sys.exit(interrupts.code or code)


@cache
def _command() -> Callable[..., Any]:
    """`app`, made once: for programs that call `main` often, as tests do, this takes longer than most commands."""
    return get_command(app)


def _run() -> int:
    try:
        return _command()(prog_name="imdn-kd", standalone_mode=False) or 0
    except InputError as error:
        for line in error.lines:
            _complain(line)
    except OSError as error:
        # Files are checked where they are used; what is left are names and folders that cannot even be looked at.
        if error.filename is None:
            raise
        _complain(f"{error.filename}: {error.strerror}; choose another name, or change its permissions")
    except typer.Abort:
        return 130
    except Exception as error:
        # Usage errors, whose class lies in click or, in newer versions of typer, inside that.
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            say(error.format_message())
        else:
            _complain(f"{_usage(error)} See imdn-kd --help.")
    return 2


def _usage(error: Any) -> str:  # noqa: ANN401 - see above
    """What is wrong with the command line; of values, in the words of option files."""
    message: str = error.format_message()
    cause = error.__cause__
    if type(cause).__name__ != "ValidationError":
        return message
    from imdn_kd.config.problems import in_words

    found = cause.errors(include_url=False)[0]
    return f"{message.partition(': ')[0]}: {in_words(found)}, not {found['input']!r}."


def _complain(message: str) -> None:
    complain(" ".join(message.split()))
