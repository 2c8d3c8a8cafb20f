"""The parser and ``main``. Each group of commands is a file: its arguments beside what it does.

Exit codes: 0 done, 1 something the user can put right (one sentence on stderr), 2 wrong usage,
130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from retrieval.cli import (
    benchmarks,
    download,
    evaluation,
    export,
    groups,
    index,
    plot,
    search,
    serve,
    training,
)
from retrieval.cli.arguments import join_boxes
from retrieval.cli.output import printable
from retrieval.errors import RetrievalError

GROUPS = (index, export, search, groups, evaluation, download, training, plot, serve, benchmarks)


def main(argv: Sequence[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        # Names of files need not be text, and not every terminal has every letter.
        if hasattr(stream, "reconfigure"):  # not where a caller catches the output
            stream.reconfigure(errors="backslashreplace")
    args = _parser().parse_args(join_boxes(sys.argv[1:] if argv is None else argv))
    try:
        return args.run(args) or 0
    except RetrievalError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = " What is finished is kept: the same command goes on."
        print("Stopped." + (kept if args.resumed else ""), file=sys.stderr)
        return 130
    except BrokenPipeError:  # … | head
        sys.stderr.close()
        return 0
    except OSError as error:
        # Any look at a path that is too long, or on a disk or in a folder of somebody else that
        # cannot be read.
        where, reason = error.filename or "A file or folder", error.strerror or error
        print(printable(f"error: {where} cannot be used: {reason}."), file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m retrieval",
        description="Search photographs by example with SIR, DELF and CNN-IRwNHA.",
    )
    parser.set_defaults(resumed=False)  # whether a stopped command goes on where it was
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in GROUPS:
        group.add(commands)
    return parser
