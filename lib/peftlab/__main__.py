"""The command line: ``python -m peftlab COMMAND``.

Exit codes: 0 done, 1 some runs failed or something is missing, 2 bad input (one sentence on stderr).
Each command imports what it needs when it is called, so that ``--help`` is instant.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence


def doctor(args: argparse.Namespace) -> int:
    """Say what is there, what is missing and how to get it; 1 if something is missing."""
    from peftlab import provenance

    wrong = 0
    for what, found, advice in _examined(full=args.full):
        print(f"{'missing' if advice else 'ok':8}{what:10}{found}{f' -> {advice}' if advice else ''}")
        wrong += bool(advice)
    commit, dirty = provenance.commit(), provenance.dirty()
    print(f"{'':8}{'code':10}{'not a git checkout' if commit is None else commit[:12] + (' with changes that are not committed' if dirty else '')}")
    print("everything is there" if not wrong else f"{wrong} missing")
    return 1 if wrong else 0


def _examined(*, full: bool) -> Iterator[tuple[str, str, str]]:
    """What `doctor` looks at: its name, what was found, and what to do about it ("" where nothing need be done)."""
    import shutil
    from importlib import metadata

    from peftlab import assets as room
    from peftlab import paths, provenance

    version = ".".join(map(str, sys.version_info[:3]))
    yield "python", f"{version} in {sys.prefix}", "" if sys.version_info >= (3, 11) else "install Python 3.11 or later"

    installed = {d.name.lower().replace("_", "-"): d.version.partition("+")[0] for d in metadata.distributions()}
    lock = [line.strip().split("==") for line in (paths.root() / "requirements.lock").read_text().splitlines() if "==" in line]
    found = {name: installed.get(name.lower().replace("_", "-"), "absent") for name, _ in lock}
    other = [f"{name} {found[name]} (locked: {pin})" for name, pin in lock if found[name] != pin]
    yield "packages", "; ".join([f"{len(lock) - len(other)} of {len(lock)} as locked", *other[:5]]), "make setup" if other else ""

    for name in room.ASSETS:
        lacks = room.missing(name)
        if not lacks:
            room.get(name, full=full)
        yield name, f"not {' and not '.join(lacks)}" if lacks else f"fetched and converted, {'digest' if full else 'size and time'} compared", "make assets" if lacks else ""
    yield "lite0", f"{room.lite0().name}, digest compared", ""

    base, pack = paths.bases() / "pocket-mlp", paths.pack() / "pack.csv"
    there = any(base.glob("delta.*"))
    yield "base", "the delta of pocket-mlp" if there else f"no delta in {base}", "" if there else "check out data/bases again, or run notebooks/00_build_base.ipynb"
    yield "pictures", "the pack" if pack.exists() else f"no {pack}", "" if pack.exists() else "check out data/pack again"

    free = shutil.disk_usage(paths.root()).free / 1e9
    yield "disk", f"{free:.0f} GB free", "" if free > 2 else "make room for 2 GB"

    gpu = "no GPU (the pocket tier needs none)"
    if shutil.which("nvidia-smi"):  # torch takes seconds to import
        import torch

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "a GPU that torch cannot use"
    yield "machine", f"{provenance.cores()} cores of {provenance.processor()}, {gpu}", ""


def assets(args: argparse.Namespace) -> int:
    """Fetch every asset once, check its digest, and convert what is converted once."""
    from importlib import import_module

    from peftlab import assets as room

    for name in room.ASSETS:
        print(f"{name}: {room.get(name)}")
    print(f"lite0: {room.lite0()}")
    import_module("peftlab.models.pocket").convert()
    return 0


def check(args: argparse.Namespace) -> int:
    """Say what is in a user's own data, or all that is wrong with it, row by row; 2 if anything is."""
    from importlib import import_module

    own = import_module("peftlab.datasets.own")
    found = own.check(args.name)
    for sentence in own.sentences(args.name, found):
        print(sentence, file=sys.stderr if found.problems else sys.stdout)
    return 2 if found.problems else 0


def run(args: argparse.Namespace) -> int:
    """Execute a grid through papermill, resuming; 1 if some runs failed or are stale. What does not fit in memory is a result."""
    import secrets

    from peftlab import grid

    study = grid.read(args.grid)  # before execute is imported: a mistake in a grid is told at once
    if args.on is not None:
        if not args.on.strip():  # a variable of the shell that is not set
            raise ValueError("--on is empty; ray (this machine), auto, host:port or ray://host:port")
        from peftlab import cluster

        return _told(cluster.run_grid(study, args.on, again_stale=args.again_stale, again_unfit=args.again_unfit, threads=args.threads, gpus=args.gpus, live=not args.plain))
    how = {"again_stale": args.again_stale, "again_unfit": args.again_unfit, "live": not args.plain}
    if CALL in os.environ:  # another process shares its grid with this one
        _end_with_parent()
        from peftlab import execute

        name, workers = os.environ[CALL].split()
        return _told(execute.run_grid(study, **how, name=name, workers=int(workers)))
    from peftlab import execute, forecast, provenance

    room = forecast.room(study, asked=args.workers, again_stale=args.again_stale)
    if room.workers == 1:
        return _told(execute.run_grid(study, **how))
    name, before = secrets.token_hex(8), os.environ.get(VISIBLE)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, provenance.cores() // room.workers)))
    others = [_beside(args, f"{name} {room.workers}", gpu) for gpu in room.gpus[1:]]

    def alone() -> None:
        for other in others:
            other.wait()  # to its own end: closing its standard input first would kill it between a finished stage and its lock
        _see(before)

    _see(room.gpus[0] or before)
    return _told(execute.run_grid(study, **how, name=name, workers=room.workers, alone=alone))


VISIBLE = "CUDA_VISIBLE_DEVICES"


def _see(gpus: str | None) -> None:
    """Let the kernels that this process starts from now on see these GPUs; None: all."""
    os.environ.pop(VISIBLE, None) if gpus is None else os.environ.update({VISIBLE: gpus})


CALL = "PEFTLAB_CALL"  # the environment's word to a worker: the name of the call that it is part of, and of how many


def _told(counts: dict[str, int]) -> int:
    """Say how a grid ended; 1 where some of it failed, is blocked or stale."""
    from peftlab.tasks import UNFIT

    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    if counts[UNFIT]:
        print("what does not fit in memory is a result, and not tried again; on a machine with more, or once the code takes less, --again-unfit tries it")
    return 1 if counts["failed"] or counts["blocked"] or counts["stale"] else 0


def _beside(args: argparse.Namespace, call: str, gpu: str | None) -> "subprocess.Popen[bytes]":
    """Another process for the same grid, on a GPU of its own choice or this one; it ends with this process, whose end closes its standard input."""
    command = [sys.executable, "-m", "peftlab", "run", args.grid, "--plain", *(f"--again-{what}" for what in ("stale", "unfit") if getattr(args, f"again_{what}"))]
    environment = {**os.environ, CALL: call, **({VISIBLE: gpu} if gpu else {})}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)


def _end_with_parent() -> None:
    """End this process at once when its standard input closes."""
    import threading

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):  # unbuffered: a buffer's lock, held by this thread, would break the interpreter's end
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def status(args: argparse.Namespace) -> int:
    """Say which runs of a grid are done, running, failed, stale or missing."""
    from peftlab import grid

    study = grid.read(args.grid)
    from peftlab import board

    board.status(study)
    return 0


def estimate(args: argparse.Namespace) -> int:
    """Say what a grid will take before anything of it starts; 1 where that is not known of all of it."""
    from peftlab import grid

    study = grid.read(args.grid)
    from peftlab import forecast

    if args.measure:
        pilots = forecast.short(study)
        if pilots.runs:
            from peftlab import execute

            execute.run_grid(pilots, live=False)
    found = forecast.table(study)
    shown = found.assign(minutes=(found["seconds"] * found["stages"] / 60).round(1), **{name: (found[name] / 1e9).round(1) for name in ("memory", "device")}).drop(columns=["disk", "seconds"])
    print(shown.rename(columns={"memory": "GB", "device": "GB of GPU"}).to_string(index=False, na_rep="–") if len(shown) else "nothing is left to do")
    for sentence in forecast.sentences(study, found, forecast.room(study, asked=args.workers)):
        print(sentence)
    return 1 if found["seconds"].isna().any() else 0


def ledger(args: argparse.Namespace) -> int:
    """Print what a method trains of a model and what it holds in memory, without weights."""
    import json

    from peftlab import grid
    from peftlab.run import Run

    given = {"model": args.model, "method": args.method}
    for pair in args.axes:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r} gives no axis a value; write AXIS=VALUE, such as size=128")
        if name in ("model", "method"):
            raise ValueError(f"{pair!r} is given beside {name} {given[name]}; the model is the first word after ledger and the method the second: change it there")
        if name in given:
            raise ValueError(f"axis {name} is given twice, as {given[name]!r} and in {pair!r}: keep one")
        given[name] = grid.level(name, value)
    if args.tokens < 1:
        raise ValueError(f"--tokens is {args.tokens}; a whole number of at least 1")
    run = Run.from_dict(given)
    from peftlab import ledger as room
    from peftlab import tables

    found = room.expected(run, tokens=args.tokens)
    if args.json:
        print(json.dumps({**found, "table": found["table"].to_dict("records")}, indent=1))
        return 0
    print(found["table"].to_string(index=False, formatters={"trainable": "{:,}".format, "total": "{:,}".format}))
    print(f"{found['trainable']:,} of {found['total']:,} train: {100 * found['trainable'] / found['total']:.3f} %" + (f", at size {found['size']}" if found["size"] else ""))
    print(", ".join(f"{name} {tables.scaled(value, tables.BYTES)}" for name, value in found["bytes"].items()))
    return 0


def export(args: argparse.Namespace) -> int:
    """Write a tuned model as one of transformers' own, merged."""
    from pathlib import Path

    from peftlab import paths, records
    from peftlab.run import Run

    tuned = paths.runs() / args.run / "finetune"
    record = records.sealed(tuned)
    if record is None:
        there = sorted(f.parent.parent.name for f in paths.runs().glob("*/finetune/run.json"))
        raise ValueError(f"there is no finished run {args.run!r} in {paths.runs()}; there are {', '.join(there) or 'none yet'}")
    from peftlab import training

    print(f"wrote {training.export(Run.from_dict(record['axes']), tuned, Path(args.folder))}")
    return 0


def judge(args: argparse.Namespace) -> int:
    """Ask an LLM of the user's choice for its opinion of the stored answers of an evaluation; it is kept by the judge's id, outside every table."""
    import json
    from pathlib import Path

    from peftlab import judge as room
    from peftlab import paths
    from peftlab.run import Run

    record = paths.runs() / args.run / "evaluate" / args.test / "run.json"
    if not record.exists():
        raise ValueError(f"there is no evaluation {args.test!r} of {args.run!r} in {paths.runs()}")
    file = room.judge_run(Run.from_dict(json.loads(record.read_text())["axes"]), room.Judge(args.url, args.model, Path(args.prompt).read_text(encoding="utf-8")))
    found = json.loads(file.read_text())
    print(f"wrote {file}")
    for told, of, names in (("", found, ("rating", "hallucinated", "n", "unparsed")), ("as MMHal-Bench counts: ", found["official"], ("rating", "hallucinated"))):
        print(told + ", ".join(f"{name} {of[name] if not isinstance(of[name], float) else round(of[name], 2)}" for name in names))
    return 0


def convert(args: argparse.Namespace) -> int:
    """Bring a checkpoint in LLaVA's own layout into transformers', where the model's card finds it."""
    from pathlib import Path

    from peftlab import models

    found = models.card(args.model)
    if found.source != models.CONVERTED:
        there = [card.name for card in models.MODELS.values() if card.source == models.CONVERTED]
        raise ValueError(f"{args.model} needs no conversion: it is read from {found.source}; the models that do are {', '.join(there)}")
    from peftlab import loading
    from peftlab.models import llava

    print(f"wrote {llava.convert_folder(args.model, Path(args.folder), loading.conversion(args.model), vision=Path(args.vision) if args.vision else None)}")
    return 0


def parameters(args: argparse.Namespace) -> int:
    """Rewrite the parameters cells of the pipeline notebooks from `Run`."""
    from peftlab import execute

    for file in execute.renew_parameters():
        print(f"renewed {file}")
    return 0


AGGREGATE = {"10_main_results": "evaluate", "13_forgetting": "evaluate", "11_hallucination": "probe", "12_cost": "finetune"}  # notebook -> the stage it reads; side by side, the longest first


def report(args: argparse.Namespace) -> int:
    """Collect what ran here, make tables and figures from it, and write the report; 1 if a notebook failed.

    Where nothing of the study ran here, the report is made from the results that there are, collected before or published; with
    ``--published`` it is made from the tracked ones, whatever ran here.
    """
    import shutil

    from peftlab import collected, execute, grid, kernels, metrics, paths
    from peftlab import report as room

    study = grid.read(args.study)
    kernels.warm_up()
    there = [folder / study.name for folder in (paths.results(), paths.published_results()) if (folder / study.name).exists()]
    if args.published:
        if not (tracked := paths.published_results() / study.name).exists():
            raise FileNotFoundError(f"study {study.name!r} is not published: {tracked} does not exist")
        shutil.rmtree(paths.results() / study.name, ignore_errors=True)  # collected again from data/runs without --published
        print(f"the report is made from {tracked}")
    elif there and not any((paths.runs() / run.id).exists() for run in study.runs):
        print(f"nothing of {study.name} ran here: the report is made from {there[0]}")
    else:
        from peftlab import baselines

        folder = collected.collect(study.name, study.runs, scorer=metrics, stages=study.stages, sources=study.sources, blind=baselines.BLIND)
        print(f"collected {len(study.runs)} runs in {folder}")
    if "evaluate" not in study.stages:
        print(f"{study.name} asks nothing of its models (no evaluate stage): its tables are all there is to report")
        return 0
    for name in ("facts", "figures", "notebooks"):
        shutil.rmtree(paths.build() / name, ignore_errors=True)
    read = [notebook for notebook, stage in AGGREGATE.items() if stage in study.stages]
    try:
        with collected.shared(study.name):
            for copy in execute.aggregate(read, study.name, each=collected.memory(study.name)):
                print(f"executed {copy}")
    except execute.StageFailed as failed:
        print(f"peftlab report: {failed}", file=sys.stderr)
        return 1
    made = room.build(study.name)
    print(f"wrote {made.html}\nwrote {made.pdf}")
    return 0


def rescore(args: argparse.Namespace) -> int:
    """Score stored answers again with the scorers as they are now, and say what changed."""
    from peftlab import collected, metrics, tables

    if args.metric:
        metrics.metric(args.metric)
    found = collected.rescore(args.study, scorer=metrics, metric=args.metric)
    for row in found.changes.to_dict("records"):
        asked = row["tested_on"] + ("" if row["test_pictures"] == "true" or row["stage"] == "probe" else f" ({row['test_pictures']} pictures)")
        print(f"{row['run']} {row['stage']} {asked} {row['metric']}: {tables.number(row['before'], 2)} -> {tables.number(row['after'], 2)}")
    for name, why in found.refused.items():
        print(f"{args.metric} was not applied to {name}: {why}")
    print(f"{len(found.changes)} of {found.scores} scores and {found.answers} answers changed; wrote {found.folder}")
    return 0


def publish(args: argparse.Namespace) -> int:
    """Renew the tracked results, figures and report; refused unless code, notebooks and lock file are committed."""
    from peftlab import report as room

    for folder in room.publish(args.study):
        print(f"renewed {folder}")
    return 0


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

    one = commands.add_parser("check", help="what is wrong with your own data, row by row, before anything trains")
    one.add_argument("name", help="a data set of your own: data/own/<name>.yaml")
    one.set_defaults(call=check)

    one = commands.add_parser("run", help="execute the runs of a grid; finished ones are skipped")
    one.add_argument("grid", help="a study in notebooks/grids, or the path of a YAML file")
    one.add_argument("--again-stale", action="store_true", help="make stale stages again")
    one.add_argument("--again-unfit", action="store_true", help="try stages again that ran out of memory: without this they count as measured, and are reported as what does not fit")
    one.add_argument("--plain", action="store_true", help="a line per stage instead of a live table")
    one.add_argument("--workers", type=int, help="runs at once (default: as many as measured memory allows; on a CPU at most four, one a core; on GPUs each bound to one, and one a GPU where nothing is measured)")
    one.add_argument("--on", metavar="CLUSTER", help="send the stages to a Ray cluster: ray (this machine), auto, host:port or ray://host:port")
    one.add_argument("--threads", type=int, default=1, help="with --on: cores a stage (default: 1)")
    one.add_argument("--gpus", type=float, help="with --on: GPUs a stage, such as 0.5 (default: 1 where the cluster has any)")
    one.set_defaults(call=run)

    one = commands.add_parser("status", help="what of a grid is done, failed, stale or missing")
    one.add_argument("grid", help="a study in notebooks/grids, or the path of a YAML file")
    one.set_defaults(call=status)

    one = commands.add_parser("estimate", help="hours, memory and disk that a grid will take, from finished stages")
    one.add_argument("grid", help="a study in notebooks/grids, or the path of a YAML file")
    one.add_argument("--measure", action="store_true", help="first run a few steps of what no finished stage can tell")
    one.add_argument("--workers", type=int, help="runs at once, as for run")
    one.set_defaults(call=estimate)

    one = commands.add_parser("ledger", help="what a method trains of a model, and the memory it takes, without weights")
    one.add_argument("model", help="a model: a card in lib/peftlab/models")
    one.add_argument("method", help="a method: a card in lib/peftlab/methods")
    one.add_argument("axes", nargs="*", metavar="AXIS=VALUE", help="other axes of the run, such as connector=tuned size=128 budget=0.5")
    one.add_argument("--tokens", type=int, default=64, help="length of a sequence, for the activations (default: 64)")
    one.add_argument("--json", action="store_true", help="for programs")
    one.set_defaults(call=ledger)

    one = commands.add_parser("export", help="write a tuned model as one of transformers' own, merged")
    one.add_argument("run", help="the id of a finished run: a folder in data/runs")
    one.add_argument("folder", help="a new folder, for weights and processor")
    one.set_defaults(call=export)

    one = commands.add_parser("judge", help="an LLM's opinion of stored answers, by an endpoint of yours (optional; never in the main table)")
    one.add_argument("run", help="the id of a run: a folder in data/runs")
    one.add_argument("test", help="its evaluation: a folder in data/runs/<run>/evaluate, such as mmhal")
    one.add_argument("--url", required=True, help="the endpoint's address up to /v1; its key, if it wants one, is PEFTLAB_JUDGE_KEY in the environment")
    one.add_argument("--model", required=True, help="the judge's name there")
    one.add_argument("--prompt", required=True, help="a text file with {question}, {reference}, {answer} and {objects} where they belong")
    one.set_defaults(call=judge)

    one = commands.add_parser("convert", help="bring a checkpoint in LLaVA's own layout into transformers'")
    one.add_argument("model", help="a model whose card says that it is converted, such as sharegpt4v-7b")
    one.add_argument("folder", help="the checkpoint: its weights and tokenizer")
    one.add_argument("--vision", help="the folder of its vision tower, where the checkpoint holds none")
    one.set_defaults(call=convert)

    one = commands.add_parser("parameters", help="rewrite the parameters cells of notebooks 01-04 from lib/peftlab/run.py")
    one.set_defaults(call=parameters)

    one = commands.add_parser("report", help="tables, figures and the report from what ran here")
    one.add_argument("study", nargs="?", default="smoke", help="the study to report (default: smoke)")
    one.add_argument("--published", action="store_true", help="make it from the tracked results, whatever ran here; tables collected here go, and are collected again without this")
    one.set_defaults(call=report)

    one = commands.add_parser("rescore", help="score stored answers again with the scorers as they are now; no model is loaded")
    one.add_argument("study", help="a study that is collected or published")
    one.add_argument("--metric", help="add the scores of this metric instead of renewing those of the study's own")
    one.set_defaults(call=rescore)

    one = commands.add_parser("publish", help="renew the tracked results, figures and report")
    one.add_argument("study", nargs="?", default="main", help="the study to publish (default: main)")
    one.set_defaults(call=publish)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; an input error is one sentence on stderr and 2, a machine's (a full disk) one and 1."""
    args = parser().parse_args(arguments)
    try:
        return args.call(args)
    except (ValueError, FileNotFoundError) as error:
        if args.traceback:
            raise
        print(f"peftlab {args.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if args.traceback:
            raise
        print(f"peftlab {args.command}: {error}; what was finished stays", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"peftlab {args.command}: interrupted; what was finished stays", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
