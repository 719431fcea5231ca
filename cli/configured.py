"""Where configuration meets click: names of variables, commands that take defaults from files, who said what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from ..storage.errors import TtcError, UsageError
from . import config

META = "ttc_replay.configuration"
GIVEN = ("COMMANDLINE", "ENVIRONMENT")
SELECTORS = ("dataset", "where")
"""What a file may say to choose runs: IDs on the command line take its place."""
SELECTED = ("ids", "runs")


class ConfiguredCommand(TyperCommand):
    """A command whose options may stand in a file or in `TTC_COMMAND_OPTION`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer's own; then options of plugins are merged, and an error names the file or variable at fault."""
        try:
            rest = super().parse_args(ctx, args)
        except Exception as error:
            raise _blamed(ctx, error) from error
        _settle(ctx, self.params)
        _tell(ctx, self.params)
        return rest


def variable(path: Sequence[str], option: str) -> str:
    """`TTC_SEARCH_POLICY_OPT`."""
    return "_".join(("TTC", *path, option)).upper().replace("-", "_")


def name_variables(command: Any, path: tuple[str, ...] = ()) -> None:
    """Give every option of a program its variable; those that have one keep it."""
    for parameter in command.params:
        if parameter.param_type_name == "option" and not parameter.envvar:
            name = config.option_name(parameter)
            if name not in config.SKIPPED:
                parameter.envvar, parameter.show_envvar = variable(path, name), False
    for name, inner in getattr(command, "commands", {}).items():
        name_variables(inner, (*path, name))


def configuration(command: Any, arguments: Sequence[str]) -> config.Configuration:
    """The files of this folder and user; none are read where somebody only asks for help. Raises UsageError."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if not before or any(item in ("--help", "-h") for item in before):
        return config.Configuration()
    return config.load(command)


def files_read(ctx: Any) -> list[Path]:
    """The configuration files that hold for this command."""
    known: config.Configuration = ctx.meta.get(META, config.Configuration())
    return [file.path for file in known.files]


def _path_of(ctx: Any) -> tuple[str, ...]:
    """The names of the commands down to this one."""
    return () if ctx.parent is None else (*_path_of(ctx.parent), str(ctx.info_name))


def _source(ctx: Any, name: str) -> str:
    """COMMANDLINE, ENVIRONMENT, DEFAULT_MAP (a file) or DEFAULT."""
    source = ctx.get_parameter_source(name)
    return "DEFAULT" if source is None else str(source.name)


def _setting(ctx: Any, name: str) -> config.Setting | None:
    known: config.Configuration = ctx.meta.get(META, config.Configuration())
    return known.values.get((*_path_of(ctx), name))


def _blamed(ctx: Any, error: Exception) -> Exception:
    """A wrong value of a file, or of a variable, as an error that names it; any other as it is."""
    parameter: Any = getattr(error, "param", None)
    said = getattr(error, "format_message", None)
    if isinstance(error, TtcError) or parameter is None or said is None:
        return error
    source = _source(ctx, parameter.name)
    setting = _setting(ctx, parameter.name)
    if source == "DEFAULT_MAP" and setting is not None:
        return UsageError(str(said()), place=setting.place)
    return UsageError(str(said()), place=str(parameter.envvar)) if source == "ENVIRONMENT" else error


def _settle(ctx: Any, parameters: Sequence[Any]) -> None:
    """What click's precedence by option cannot know: tables are merged by key, and belong to the plugin they were
    written for; IDs take the place of a selection."""
    for parameter in parameters:
        name = str(parameter.name)
        if name.endswith("_opt") and (said := ctx.lookup_default(name)):
            given = list(ctx.params[name] or ()) if _source(ctx, name) in GIVEN else []
            ctx.params[name] = config.merged_pairs(_fitting(ctx, name.removesuffix("_opt"), said), given) or None
    if any(ctx.params.get(name) for name in SELECTED):
        for name in SELECTORS:
            if _source(ctx, name) == "DEFAULT_MAP":
                ctx.params[name] = None


def _fitting(ctx: Any, owner: str, pairs: Sequence[str]) -> list[str]:
    """The file's options that fit the plugin that was chosen: all, unless it is another than the file's."""
    said = ctx.lookup_default(owner)
    if said is None or _source(ctx, owner) not in GIVEN or ctx.params[owner] == said:
        return list(pairs)
    if not isinstance(said, list):
        return []
    chosen = [str(item).rpartition("=")[0] or str(item) for item in ctx.params[owner] or ()]
    chosen += [str(ctx.params["accept"])] if ctx.params.get("accept") else []
    return [pair for pair in pairs if any(pair.startswith(f"{name}.") for name in chosen)]


def _tell(ctx: Any, parameters: Sequence[Any]) -> None:
    """With -v: which files were read, and which values are from where."""
    known: config.Configuration = ctx.meta.get(META, config.Configuration())
    for note in known.notes:
        ctx.obj.note(note)
    for line in _origins(ctx.parent, ctx.parent.command.params):
        ctx.obj.detail(line)
    for line in _origins(ctx, parameters):
        ctx.obj.detail(line)
    for file in known.files:
        ctx.obj.detail(f"configuration: read {file.path}")


def _origins(ctx: Any, parameters: Sequence[Any]) -> Iterator[str]:
    for parameter in parameters:
        source, setting = _source(ctx, parameter.name), _setting(ctx, parameter.name)
        option = f"configuration: --{config.option_name(parameter)}" if parameter.param_type_name == "option" else ""
        if source == "ENVIRONMENT":
            yield f"{option} from {parameter.envvar}"
        elif source == "DEFAULT_MAP" and setting is not None:
            yield f"{option} from {setting.place}"
