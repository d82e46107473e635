"""``python -m bench [NAME ...]``: measure, keep, and print all that was measured last as one table."""

import sys
from importlib import import_module

import torch
from rich.console import Console
from rich.table import Table

from bench import pairs
from peftlab import loading, provenance

BENCHES = ("kernels", "pictures", "steps", "answers", "peers", "sizes", "scale", "report", "disasters")
ON_GPU = ("steps", "answers", "peers", "sizes")  # that use a GPU where there is one


def main(names: list[str]) -> int:
    """Measure the benches of these names, or all; 2 where a name is none."""
    for name in names:
        if name not in BENCHES:
            print(f"bench: there is no bench {name!r}; choose among {', '.join(BENCHES)}", file=sys.stderr)
            return 2
    for name in names or BENCHES:
        found = import_module(f"bench.{name}").measure()
        if not found:
            continue
        device = provenance.machine()["device"] if name in ON_GPU else "cpu"
        stamp = {"commit": provenance.commit(), "dirty": provenance.dirty(), "packages": provenance.packages(), "processor": provenance.processor(), "cores": provenance.cores(), "device": device}
        if name in ON_GPU:
            kind = loading.products("bf16")
            stamp["products"] = pairs.AMX if kind == "bf16" and device == "cpu" and torch.cpu.get_capabilities().get("amx_bf16") else kind
        print(f"wrote {pairs.keep(name, found, stamp)}")
    table = Table(title="ours beside what a user would run instead; ratio: how many times better ours is, median [least, most]")
    for column in ("bench", "what", "ours", "peer", "the peer", "ratio", "note"):
        table.add_column(column, overflow="fold")
    for name, pair in pairs.kept():
        table.add_row(name, *pair.row())
    Console(width=200).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
