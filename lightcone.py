"""The command line: one verb per entry of `VERBS`. Owns names, help and exit codes; the packages do the work.

A verb has a function that adds its arguments, in a module that loads no torch so that `--help` is instant, and a module
with `run(args) -> exit code`, which is imported once the arguments are known to be right.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn

from server.errors import ConfigError, ModelFailedError
from world.errors import LightconeError


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """One sub-command: `arguments` as "module:function", the module that runs it, one line of help, and examples.

    stopped: for a verb that works for long, what is said when SIGINT or SIGTERM has ended it: what is kept, and how to
    go on. Verbs without it handle SIGTERM themselves.
    """

    arguments: str
    module: str
    help: str
    examples: tuple[str, ...]
    stopped: str | None = None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments to `parser`."""
        module, _, function = self.arguments.partition(":")
        add: Callable[[argparse.ArgumentParser], None] = getattr(import_module(module), function)
        add(parser)


VERBS = {
    "serve": Verb(
        arguments="server.cli.arguments:add_serve_arguments",
        module="server.cli.serve",
        help="serve worlds to browsers and agents",
        examples=(
            "lightcone serve",
            "lightcone serve --world pong --port 9000",
            "lightcone serve --world runs/mine",
        ),
    ),
    "play": Verb(
        arguments="server.cli.arguments:add_play_arguments",
        module="server.cli.play",
        help="serve a world and open the browser",
        examples=("lightcone play", "lightcone play pong"),
    ),
    "worlds": Verb(
        arguments="server.cli.arguments:add_worlds_arguments",
        module="server.cli.worlds",
        help="list the worlds that can be served",
        examples=("lightcone worlds", "lightcone worlds --json"),
    ),
    "collect": Verb(
        arguments="distill.cli.arguments:add_collect_arguments",
        module="distill.cli.collect",
        help="record clips and actions from an environment",
        examples=("lightcone collect pong", "lightcone collect --env CarRacing-v3"),
        stopped="what is complete is kept; the same command records the rest",
    ),
    "train": Verb(
        arguments="distill.cli.arguments:add_train_arguments",
        module="distill.cli.train",
        help="turn an environment into a playable world: collect, codec, teacher, student",
        examples=("lightcone train pong", "lightcone train --env CarRacing-v3 --preset quick"),
        stopped="every complete step is saved; the same command continues there",
    ),
    "eval": Verb(
        arguments="distill.cli.arguments:add_eval_arguments",
        module="distill.cli.eval",
        help="measure a world against its environment on held-out starts",
        examples=("lightcone eval pong", "lightcone eval pong --json"),
        stopped="no report was written; the same command measures again",
    ),
    "compile": Verb(
        arguments="world.cli.arguments:add_compile_arguments",
        module="world.cli.compile",
        help="make a world faster on this machine's CPU; takes some minutes once and needs a C++ compiler",
        examples=("lightcone compile", "lightcone compile runs/mine --batches 1"),
        stopped="what is compiled is kept; the same command compiles the rest",
    ),
    "bench": Verb(
        arguments="benchmarks.cli:add_arguments",
        module="benchmarks.cli",
        help="measure latency and speed on this machine",
        examples=("lightcone bench play --seconds 60 --json", "lightcone bench speedup --json"),
        stopped="nothing was measured; the same command begins again",
    ),
}

EXIT_USAGE = 2
EXIT_SOFTWARE = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM as an exception, so that long work ends as after Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Return its exit code: 0 done, 1 done with a bad result, 2 wrong input, 70 a world
    failed while it was served (start the process again), 130 interrupted (SIGINT), 143 terminated (SIGTERM).

    argv: None for those of this process, which is then ended at once by an interruption.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    verb = next((word for word in arguments if word in VERBS), None)
    args = build_parser(verb).parse_args(arguments)
    if args.verb is None:
        build_parser(None).print_help()
        return EXIT_USAGE
    stopped = VERBS[args.verb].stopped
    try:
        with _terminable(stopped is not None):
            module = import_module(VERBS[args.verb].module)
            code = int(module.run(args))
        sys.stdout.flush()  # now, so that a closed pipe is noticed below
        return code
    except (
        LightconeError,
        ConfigError,
    ) as error:  # answers to wrong input; other errors are faults: keep the traceback
        print(f"lightcone {args.verb}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ModelFailedError as error:
        print(f"lightcone {args.verb}: {error}", file=sys.stderr)
        return EXIT_SOFTWARE
    except KeyboardInterrupt as error:
        if stopped is not None:
            print(f"\nlightcone {args.verb}: stopped; {stopped}", file=sys.stderr)
        code = EXIT_TERMINATED if isinstance(error, Terminated) else EXIT_INTERRUPTED
        if argv is None:
            _leave(code)
        return code
    except BrokenPipeError:  # the reader of the output has closed it, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _leave(code: int) -> NoReturn:
    """End the process without the interpreter's own end, which takes seconds where torch is loaded: all work has been
    unwound already."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def _terminable(is_long: bool) -> Iterator[None]:
    """Raise Terminated for SIGTERM inside the block, if the verb works for long."""

    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate) if is_long else None
    try:
        yield
    finally:
        if is_long:
            signal.signal(signal.SIGTERM, before)


def build_parser(verb: str | None) -> argparse.ArgumentParser:
    """Return the parser of all verbs, with the arguments of `verb` only."""
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
            entry.add_arguments(sub)
    return parser


if __name__ == "__main__":
    sys.exit(main())
