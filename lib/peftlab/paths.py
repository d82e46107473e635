"""Every folder of the project, from one root.

The root is the checkout that holds this file (an editable install), or ``PEFTLAB_ROOT``.  What a machine makes for itself
(prepared data, runs, collected results of an unpublished study) may be sent elsewhere with ``PEFTLAB_WORK``; converted models
and picture features with ``PEFTLAB_CACHE``; copies of hub repositories with ``PEFTLAB_HUB``.  All are read at each call, so a kernel inherits them.
"""

import os
from functools import cache
from pathlib import Path


@cache
def _checkout() -> Path:
    return Path(__file__).resolve().parents[2]


def root() -> Path:
    """The project's folder."""
    return Path(given) if (given := os.environ.get("PEFTLAB_ROOT")) else _checkout()


def _work() -> Path:
    return Path(os.environ.get("PEFTLAB_WORK") or root() / "data")


def pack() -> Path:
    """The tracked pictures, tables and fonts."""
    return root() / "data" / "pack"


def texts() -> Path:
    """The tracked passages in the public domain, by which forgetting of plain language is measured."""
    return root() / "data" / "texts"


def bases() -> Path:
    """The tracked deltas that turn ordinary packages' weights into pocket bases."""
    return root() / "data" / "bases"


def prepared() -> Path:
    """Examples as Parquet, a folder per data set (made by notebook 01)."""
    return _work() / "prepared"


def own() -> Path:
    """What a user brings: a YAML per data set of their own, and where it lies beside it, its pictures and table."""
    return _work() / "own"


def hub() -> Path:
    """Copies of hub repositories and of authors' releases, a folder each; what is here is not fetched."""
    return Path(os.environ.get("PEFTLAB_HUB") or _work() / "hub")


def inside(folder: Path, name: str) -> Path:
    """The file `name` below `folder`; raises ValueError where the name, or a link on the way, leads out of the folder."""
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} leads out of the folder {folder}")
    return file


def runs() -> Path:
    """A folder per run (made by notebooks 02-04)."""
    return _work() / "runs"


def results() -> Path:
    """Collected tidy tables of what ran here, a folder per study; ignored by git, `make publish` copies them."""
    return _work() / "results" if os.environ.get("PEFTLAB_WORK") else root() / "report" / "build" / "results"


def published_results() -> Path:
    """The tracked tidy tables, a folder per study."""
    return root() / "data" / "results"


def cache() -> Path:
    """Assets, converted models and picture features; safe to delete."""
    return Path(os.environ.get("PEFTLAB_CACHE") or root() / "data" / "cache")


def notebooks() -> Path:
    """The parameterised notebooks."""
    return root() / "notebooks"


def grids() -> Path:
    """The declared studies, a YAML each."""
    return root() / "notebooks" / "grids"


def figures() -> Path:
    """The published figures."""
    return root() / "figures"


def report() -> Path:
    """The report's template, bibliography and published copies."""
    return root() / "report"


def build() -> Path:
    """What `make report` writes; ignored by git."""
    return _work() / "build" if os.environ.get("PEFTLAB_WORK") else root() / "report" / "build"
