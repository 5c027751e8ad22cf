"""Command lines: flags made from the configuration dataclasses, and one line with exit code 2 for bad input."""

import argparse
import dataclasses
import io
import os
import sys
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from gpt_core.errors import InputError, describe_os_error


class Parser(argparse.ArgumentParser):
    """argparse with whole flags only, defaults shown in --help, and one line on stderr for a usage error."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {' '.join(message.split())} (see {self.prog} --help)\n")


def flag(field: str) -> str:
    """The flag of a configuration field: n_layer -> --n-layer."""
    return "--" + field.replace("_", "-")


def add_config_flags(parser: argparse.ArgumentParser, *configs: type) -> None:
    """Adds a flag for every field of the dataclasses; a flag that is not given leaves no trace in the namespace."""
    for config in configs:
        group = parser.add_argument_group(f"{config.__name__} (default: from the preset)")
        hints = get_type_hints(config)
        for field in dataclasses.fields(config):
            if hints[field.name] is bool:
                on_or_off = argparse.BooleanOptionalAction
                group.add_argument(flag(field.name), action=on_or_off, default=argparse.SUPPRESS, help=field.metadata["help"])
                continue
            kind, choices = _kind(hints[field.name])
            group.add_argument(
                flag(field.name),
                type=kind,
                choices=choices,
                default=argparse.SUPPRESS,
                metavar=None if choices else {int: "N", float: "X"}.get(kind, "TEXT"),
                help=field.metadata["help"],
            )


def overrides(args: argparse.Namespace, config: type) -> dict[str, Any]:
    """The fields of `config` that were given as flags."""
    names = {field.name for field in dataclasses.fields(config)}
    return {name: value for name, value in vars(args).items() if name in names}


def run(main: Callable[[], int | None]) -> NoReturn:
    """Calls a command's `main` and turns its outcome into an exit code; bad input is one line on stderr and code 2."""
    try:
        code = main() or 0
        sys.stdout.flush()  # here, where a closed pipe can still be told
        sys.exit(code)
    except InputError as error:
        sys.exit(_fail(str(error)))
    except BrokenPipeError:
        with suppress(io.UnsupportedOperation):  # so that the flush at exit finds an open file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_fail("the output was closed before the command ended"))
    except OSError as error:
        sys.exit(_fail(describe_os_error(error)))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted"))


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _kind(hint: Any) -> tuple[Any, list[str] | None]:
    if get_origin(hint) is Literal:
        return str, list(get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return _kind(next(arg for arg in get_args(hint) if arg is not type(None)))
    return hint, None
