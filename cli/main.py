"""`ttc-replay`: the typer app. Each command's work is imported when it runs, so that `--help` stays light."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ..storage.errors import TtcError
from .state import State, hoist

if TYPE_CHECKING:
    from collections.abc import Sequence


class AnywhereGroup(TyperGroup):
    """Accepts the global options before and after the command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Hoist them before the parser sees the line."""
        return super().parse_args(ctx, hoist(args))


app = typer.Typer(
    cls=AnywhereGroup,
    name="ttc-replay",
    help="Put logged agent runs back to any step, search from there, export what went better.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Try: ttc-replay demo   ·   ttc-replay ingest logs/ && ttc-replay ls",
)


@app.callback()
def root(
    ctx: typer.Context,
    db: Annotated[str, typer.Option(help="Database file or URL.", envvar="TTC_DB")] = "./ttc.duckdb",
    json_output: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="More notes.")] = False,
    debug: Annotated[bool, typer.Option(help="Show a traceback on errors.")] = False,
) -> None:
    """Global options, accepted before and after the command."""
    ctx.obj = State(db=db, json=json_output, quiet=quiet, verbose=verbose, debug=debug)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code (design.md section 7)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        app(args=given, prog_name="ttc-replay")
    except TtcError as error:
        if debug:
            raise
        complain(error.line(), error.hint)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        complain("interrupted", None)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        complain(f"error[TTC-E000]: {type(error).__name__}: {error}", "this is our bug: --debug shows the traceback")
        sys.exit(70)


def complain(line: str, hint: str | None) -> None:
    """One line and a hint on stderr, foreign text made safe."""
    from ..storage.redact import mask, safe

    sys.stderr.write(mask(safe(line)).replace("\n", " ") + "\n")
    if hint:
        sys.stderr.write(f"hint: {mask(safe(hint))}\n")


def _register() -> None:
    from . import browse, data, demo, inspection, search

    for module in (demo, data, browse, search, inspection):
        module.register(app)


_register()
