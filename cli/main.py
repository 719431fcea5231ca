"""`ttc-replay`: the typer app. Each command's work is imported when it runs, so that `--help` stays light."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from ..storage.errors import TtcError, UsageError
from .configured import META, ConfiguredCommand, configuration, name_variables
from .failures import complain
from .state import State, hoist

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "ttc-replay"
OUR_BUG = 70


class AnywhereGroup(TyperGroup):
    """Accepts the global options before and after the command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Hoist them before the parser sees the line."""
        return super().parse_args(ctx, hoist(args))


app = typer.Typer(
    cls=AnywhereGroup,
    name=NAME,
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
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every row and problem, more notes.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback on errors.")] = False,
) -> None:
    """Global options, accepted before and after the command."""
    ctx.obj = State(db=db, json=json_output, quiet=quiet, verbose=verbose, debug=debug)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code (design.md section 7)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if f"_{NAME.replace('-', '_').upper()}_COMPLETE" in os.environ:  # the shell asks for completions
        app(prog_name=NAME)
    sys.exit(_run(given, debug="--debug" in hoist(given)))


def _run(given: list[str], *, debug: bool) -> int:
    """The exit code. Runs the command without typer's own error handling, whose exit codes are not ours."""
    context = None
    try:
        with _context(given) as context:
            context.command.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    except BrokenPipeError:
        _drop_output()
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted", None)
        return 130
    except Exception as error:  # noqa: BLE001 (the last line of defence: every error gets its line and its code)
        if debug or getattr(getattr(context, "obj", None), "debug", False):
            traceback.print_exception(error)
        return _failed(error, given)
    return 0


def _context(given: list[str]) -> Any:
    """The parsed line, with defaults from the configuration files. Raises UsageError."""
    command: Any = get_command(app)
    name_variables(command)
    configured = configuration(command, hoist(given))
    context = command.make_context(NAME, given, default_map=configured.default_map())
    context.meta[META] = configured
    return context


def _failed(error: Exception, given: Sequence[str]) -> int:
    if isinstance(error, TtcError):
        complain(error.line(), error.hint or (_help_hint(given) if isinstance(error, UsageError) else None))
        return error.exit_code
    if callable(said := getattr(error, "format_message", None)):  # a usage error of typer, which has no public class
        return _misused(error, str(said()))
    complain(f"error[TTC-E000]: {type(error).__name__}: {error}", "this is our bug: --debug shows the traceback")
    return OUR_BUG


def _misused(error: Exception, message: str) -> int:
    path = getattr(getattr(error, "ctx", None), "command_path", NAME)
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(message + "\n")
    else:
        complain(f"error[TTC-E100]: {message}", f"{path} --help lists what it takes")
    return 2


def _help_hint(given: Sequence[str]) -> str:
    """Where the options of the command are listed."""
    commands = getattr(get_command(app), "commands", {})
    command = next((f" {item}" for item in given if item in commands), "")
    return f"{NAME}{command} --help lists what it takes"


def _drop_output() -> None:
    """Whoever read stdout is gone (`| head`): that is no failure, and nothing more may be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _register() -> None:
    from . import blame, browse, check, compare, data, demo, init, inspection, replay, search, serve, world

    for module in (demo, data, browse, replay, search, blame, compare, check, init, inspection, serve, world):
        module.register(app)
    for info in app.registered_commands:
        info.cls = ConfiguredCommand


_register()
