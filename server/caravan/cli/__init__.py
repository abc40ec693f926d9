"""The command `caravan` and its subcommands, one module each.

A module has `add_parser(subparsers)`, which sets `run`: a function from the parsed arguments to the
exit status. What is heavy to import (torch, the web framework) is imported by `run`'s own module or
inside `run`, so that `caravan serve` never loads torch and `--help` loads neither.

    exit status  0    done
                 1    failed
                 2    a flag or a file that it cannot start with; one line on stderr says why
                 130  interrupted
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from caravan import __version__
from caravan.cli import bench, chat, check, serve
from caravan.cli.flags import Parser
from caravan.errors import CaravanError

COMMANDS = (serve, chat, check, bench)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. `arguments`: without the program's name; default: the process's own."""
    parser = Parser(prog="caravan", description="Serves Meta's Llama 4 to every OpenAI client.")
    parser.add_argument("--version", action="version", version=f"caravan {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    parsed = parser.parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except CaravanError as error:
        sys.stderr.write(f"caravan: error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return status
