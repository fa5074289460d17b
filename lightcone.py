"""The command line: one verb per line of `VERBS`. Owns names, help and exit codes; the work is done by the packages.

A verb's module has `add_arguments(parser)` and `run(args) -> exit code`; only the chosen verb's module is imported, so
that `--help` is instant and serving never loads the training code.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """One sub-command: the module that does it, one line of help, and examples to start from."""

    module: str
    help: str
    examples: tuple[str, ...]


VERBS = {
    "serve": Verb(
        module="server.cli.serve",
        help="serve worlds to browsers and agents",
        examples=(
            "lightcone serve",
            "lightcone serve --world pong --port 9000",
            "lightcone serve --world runs/mine",
        ),
    ),
    "play": Verb(
        module="server.cli.play",
        help="serve a world and open the browser",
        examples=("lightcone play", "lightcone play pong"),
    ),
    "worlds": Verb(
        module="server.cli.worlds",
        help="list the worlds that can be served",
        examples=("lightcone worlds", "lightcone worlds --json"),
    ),
    "collect": Verb(
        module="distill.cli.collect",
        help="record clips and actions from an environment",
        examples=("lightcone collect pong", "lightcone collect --env CarRacing-v3"),
    ),
    "train": Verb(
        module="distill.cli.train",
        help="turn an environment into a playable world: collect, codec, teacher, student",
        examples=("lightcone train pong", "lightcone train --env CarRacing-v3 --preset quick"),
    ),
    "eval": Verb(
        module="distill.cli.eval",
        help="measure a world against its environment on held-out starts",
        examples=("lightcone eval pong", "lightcone eval pong --json"),
    ),
    "compile": Verb(
        module="world.cli.compile",
        help="make a world faster on this machine's CPU: needs a C++ compiler, and some minutes, once",
        examples=("lightcone compile", "lightcone compile runs/mine --batches 1"),
    ),
    "bench": Verb(
        module="benchmarks.cli",
        help="measure latency and speed on this machine",
        examples=("lightcone bench play --seconds 60 --json", "lightcone bench speedup --json"),
    ),
}

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. Returns its exit code: 0 done, 1 done but not good, 2 wrong input, 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    verb = next((word for word in arguments if word in VERBS), None)
    args = build_parser(verb).parse_args(arguments)
    if args.verb is None:
        build_parser(None).print_help()
        return EXIT_USAGE
    module = import_module(VERBS[args.verb].module)
    try:
        code = int(module.run(args))
        sys.stdout.flush()  # here, so that a reader who went away is met below
        return code
    except user_errors() as error:
        print(f"lightcone {args.verb}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def build_parser(verb: str | None) -> argparse.ArgumentParser:
    """The parser of all verbs, with the arguments of `verb` only."""
    parser = argparse.ArgumentParser(
        prog="lightcone",
        description="Worlds you can play, distilled from video diffusion models.",
        epilog="`lightcone VERB --help` explains a verb. To begin: lightcone play",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, entry in VERBS.items():
        sub = verbs.add_parser(
            name,
            help=entry.help,
            description=f"{entry.help[0].upper()}{entry.help[1:]}.",
            epilog="examples:\n" + "\n".join(f"  {example}" for example in entry.examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == verb:
            import_module(entry.module).add_arguments(sub)
    return parser


def user_errors() -> tuple[type[Exception], ...]:
    """The errors that are answers to wrong input; all others are faults and keep their traceback."""
    from server.errors import ConfigError
    from world.errors import LightconeError

    return LightconeError, ConfigError


if __name__ == "__main__":
    sys.exit(main())
