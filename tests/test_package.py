"""What is built and shipped: version, files of the wheel, entry points."""

from __future__ import annotations

import configparser
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

import temporal_attn

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def project() -> dict[str, object]:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib comes with Python 3.11")
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("hatchling", reason="the build backend is not installed: pip install hatchling")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def in_wheel(wheel: zipfile.ZipFile, ending: str) -> str:
    (name,) = [name for name in wheel.namelist() if name.endswith(ending)]
    return wheel.read(name).decode()


def test_the_version_is_the_same_everywhere(project: dict[str, object]):
    assert project["version"] == temporal_attn.__version__


def test_the_wheel_holds_both_packages_whole(wheel: zipfile.ZipFile):
    held = set(wheel.namelist())
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("temporal_attn", "datamodules")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.endswith((".pyc", ".pyo"))
    }
    assert sources <= held
    assert {"temporal_attn/py.typed", "datamodules/py.typed"} <= held
    assert any(name.startswith("temporal_attn/keyframes/templates/") for name in held)


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops - {"temporal_attn", "datamodules"} == {f"temporal_attn-{temporal_attn.__version__}.dist-info"}
    assert not [name for name in wheel.namelist() if name.endswith((".pyc", ".ckpt", ".pth"))]


def test_the_wheel_names_its_metadata(wheel: zipfile.ZipFile, project: dict[str, object]):
    metadata = in_wheel(wheel, ".dist-info/METADATA")
    assert "Name: temporal-attn\n" in metadata
    assert f"Version: {project['version']}\n" in metadata
    assert "License-Expression: Apache-2.0\n" in metadata
    for extra in project["optional-dependencies"]:  # type: ignore[attr-defined]
        assert f"Provides-Extra: {extra}\n" in metadata


def test_every_entry_point_can_be_called(wheel: zipfile.ZipFile):
    points = configparser.ConfigParser()
    points.read_string(in_wheel(wheel, ".dist-info/entry_points.txt"))
    assert points["console_scripts"]["temporal-attn"] == "temporal_attn.cli:main"
    for group in points.sections():
        for target in points[group].values():
            module, name = target.split(":")
            assert callable(getattr(import_module(module), name)), target
