"""What `--help` prints: as wide as the terminal, nothing cut, option types as words, and examples."""

import re
from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup

from metaray.cli.examples import EXAMPLES
from metaray.cli.options import with_values

AS_WIDE_AS_THE_TERMINAL = {"max_content_width": 10_000}
"""Settings of the root; by themselves help texts end at 80 columns, however wide the terminal is."""
HUGE = 2**31
"""An upper bound from here on is that of a machine's integers, and says nothing to a reader."""


class Command(TyperCommand):
    """A command whose help names values by words (`--workers N`) and ends with examples."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Values that were left out have their defaults."""
        return super().parse_args(ctx, with_values(args))

    def get_help_option(self, ctx: Any) -> Any:
        """The option --help."""
        return _without_coercion(super().get_help_option(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The line that the help begins with: `[OPTIONS] RECIPE`."""
        pieces = [str(self.options_metavar)] if self.options_metavar else []
        return [*pieces, *(_usage(one) for one in self.get_params(ctx) if one.param_type_name == "argument")]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options."""
        _write_parameters(self.get_params(ctx), formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Examples, at the end, where a terminal shows them."""
        _write_examples(ctx.command_path, formatter)


class Group(TyperGroup):
    """A group of commands, whose help holds what each does, uncut."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option --help."""
        return _without_coercion(super().get_help_option(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The commands, then the options."""
        self.format_commands(ctx, formatter)
        _write_parameters(self.get_params(ctx), formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Every command, with the first paragraph of its help."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, _first_paragraph(one.help or "")) for name, one in found if one is not None and not one.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Examples, at the end, where a terminal shows them."""
        _write_examples(ctx.command_path, formatter)


def _without_coercion(option: Any) -> Any:
    """An option that is False where it is not given: for None typer would import pydantic, which takes long."""
    if option is not None and option.default is None:
        option.default = False
    return option


def _first_paragraph(text: str) -> str:
    return " ".join(text.strip().partition("\n\n")[0].split())


def _write_examples(command: str, formatter: Any) -> None:
    if found := EXAMPLES.get(command):
        with formatter.section("Examples" if len(found) > 1 else "Example"):
            for line in found:
                formatter.write("".join(f"  {part}\n" for part in folded(line, formatter.width - 2)))


def folded(line: str, width: int) -> list[str]:
    """A command line in parts that a narrow terminal shows whole; a shell joins them again when they are copied."""
    if len(line) <= width:
        return [line]
    first, *options = re.split(r"(?<=\S) (?=--)", line)
    parts = [first]
    for option in options:
        if len(f"{parts[-1]} {option} \\") <= width:
            parts[-1] += f" {option}"
        else:
            parts.append(f"    {option}")
    return [*(f"{part} \\" for part in parts[:-1]), parts[-1]]


def _write_parameters(parameters: Iterable[Any], formatter: Any) -> None:
    shown = [one for one in parameters if not one.hidden]
    for kind, heading in (("argument", "Arguments"), ("option", "Options")):
        if rows := [(_name(one), _text(one)) for one in shown if one.param_type_name == kind]:
            with formatter.section(heading):
                formatter.write_dl(rows)


def _usage(argument: Any) -> str:
    name = _name(argument)
    return name if argument.required else f"[{name}]"


def _name(parameter: Any) -> str:
    """The name in the help, as in `RECIPE`, `--workers N` or `--register / --no-register`."""
    if parameter.param_type_name == "argument":
        return f"{parameter.metavar or parameter.name.upper()}{'...' if parameter.nargs != 1 else ''}"
    names = " / ".join([*parameter.opts, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} {parameter.metavar or parameter.name.upper()}"


def _text(parameter: Any) -> str:
    """What it means, and in brackets whether it must be there, its default and its bounds."""
    facts = [fact for fact in (_default(parameter), _bounds(parameter), _needed(parameter)) if fact]
    told = f"  [{'; '.join(facts)}]" if facts else ""
    return f"{parameter.help or ''}{told}".strip()


def _needed(parameter: Any) -> str:
    if parameter.required:
        return "required"
    return "may be repeated" if getattr(parameter, "multiple", False) else ""


def _default(parameter: Any) -> str:
    value = parameter.default
    if getattr(parameter, "is_flag", False):
        if not parameter.secondary_opts or value is None:
            return ""
        return f"default: {(parameter.opts if value else parameter.secondary_opts)[0]}"
    if value is None or callable(value) or parameter.required:
        return ""
    return f"default: {value:g}" if isinstance(value, float) else f"default: {value}"


def _bounds(parameter: Any) -> str:
    low, high = getattr(parameter, "min", None), getattr(parameter, "max", None)
    if low is None:
        return "" if high is None else f"at most {high}"
    if high is None or high >= HUGE:
        return f"at least {low}" if low else ""  # that a count or a seed is not below zero, everybody knows
    return f"{low} to {high}"
