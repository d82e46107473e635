"""The command line: ``python -m peftlab COMMAND``.

Exit codes: 0 done, 1 some runs failed or something is missing, 2 bad input (one sentence on stderr).
Each command imports what it needs when it is called, so that ``--help`` is instant.
"""

import argparse
import sys
from collections.abc import Sequence


def doctor(args: argparse.Namespace) -> int:
    """Say what is there, what is missing and how to get it; 1 if something is missing."""
    from peftlab import doctor as room

    return room.show(full=args.full)


def assets(args: argparse.Namespace) -> int:
    """Fetch every asset once, check its digest, and convert what is converted once."""
    from importlib import import_module

    from peftlab import assets as room

    for name in room.ASSETS:
        print(f"{name}: {room.get(name)}")
    print(f"lite0: {room.lite0()}")
    import_module("peftlab.models.pocket").convert()
    return 0


def run(args: argparse.Namespace) -> int:
    """Execute a grid through papermill, resuming; 1 if some runs failed or are stale."""
    from peftlab import execute, grid

    counts = execute.run_grid(grid.read(args.grid), again_stale=args.again_stale, live=not args.plain)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts["failed"] or counts["blocked"] or counts["stale"] else 0


def status(args: argparse.Namespace) -> int:
    """Say which runs of a grid are done, running, failed, stale or missing."""
    from peftlab import execute, grid

    execute.status(grid.read(args.grid))
    return 0


def parameters(args: argparse.Namespace) -> int:
    """Rewrite the parameters cells of the pipeline notebooks from `Run`."""
    from peftlab import execute

    for file in execute.renew_parameters():
        print(f"renewed {file}")
    return 0


def report(args: argparse.Namespace) -> int:
    """Make the tables, the figures and the report from what ran here."""
    from peftlab import report as room

    return room.build(args.study)


def publish(args: argparse.Namespace) -> int:
    """Renew the tracked results, figures and report; refused unless code, notebooks and lock file are committed."""
    from peftlab import report as room

    return room.publish(args.study)


def parser() -> argparse.ArgumentParser:
    """Every command with its arguments."""
    top = argparse.ArgumentParser(prog="python -m peftlab", description="A reproducible study of PEFT for multimodal LLMs.")
    top.add_argument("--traceback", action="store_true", help="show the whole traceback of an input error")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser("doctor", help="what is there, what is missing and how to get it")
    one.add_argument("--full", action="store_true", help="read every asset again and compare its whole digest")
    one.set_defaults(call=doctor)

    one = commands.add_parser("assets", help="fetch and check what is fetched once")
    one.set_defaults(call=assets)

    one = commands.add_parser("run", help="execute the runs of a grid; finished ones are skipped")
    one.add_argument("grid", help="a study in notebooks/grids, or the path of a YAML file")
    one.add_argument("--again-stale", action="store_true", help="make stale stages again")
    one.add_argument("--plain", action="store_true", help="a line per stage instead of a live table")
    one.set_defaults(call=run)

    one = commands.add_parser("status", help="what of a grid is done, failed, stale or missing")
    one.add_argument("grid", help="a study in notebooks/grids, or the path of a YAML file")
    one.set_defaults(call=status)

    one = commands.add_parser("parameters", help="rewrite the parameters cells of notebooks 01-04 from lib/peftlab/run.py")
    one.set_defaults(call=parameters)

    one = commands.add_parser("report", help="tables, figures and the report from what ran here")
    one.add_argument("study", nargs="?", default="smoke", help="the study to report (default: smoke)")
    one.set_defaults(call=report)

    one = commands.add_parser("publish", help="renew the tracked results, figures and report")
    one.add_argument("study", nargs="?", default="main", help="the study to publish (default: main)")
    one.set_defaults(call=publish)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; an input error is one sentence on stderr and 2."""
    args = parser().parse_args(arguments)
    try:
        return args.call(args)
    except (ValueError, FileNotFoundError) as error:
        if args.traceback:
            raise
        print(f"peftlab {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"peftlab {args.command}: interrupted; what was finished stays", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
