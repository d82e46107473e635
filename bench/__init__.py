"""Speed and memory beside what a user would run instead, both in one call, as ratios."""

import os
from pathlib import Path


def customised(folder: Path, code: str) -> dict[str, str]:
    """The environment of a Python that runs `code` first, as does every Python that it starts; `folder` holds the code, and is made unless it is there."""
    if not folder.exists():
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}
