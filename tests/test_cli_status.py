"""What the program says of itself, how it ends, and what it does with the streams that it is given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_cli import ROOT, one_line

from temporal_attn.cli import main


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--help"], 0, "inspect"),
        ([], 0, "usage"),
        (["--version"], 0, "temporal-attn"),
        (["nonsense"], 2, "nonsense"),
        (["bench", "--help"], 0, "bench loader"),
        (["bench", "nonsense"], 2, "'bench nonsense' is not a command; choose one of: bench loader"),
        (["doctor"], 2, "required: root"),
        (["fit", "--data.help", "UCF101DataModule"], 0, "--data.val_groups"),
        (["fit", "--data", "NoSuchDataModule"], 2, "usage: temporal-attn fit [options]\n"),
        (["inspect", "--help"], 0, "--checkpoint"),
        (["fit", "--help"], 0, "--model"),
        (["demo", "--help"], 0, "--out"),
        (["fit", "--model.backbonee=x"], 2, "backbonee"),
    ],
)
def test_usage(words: list[str], status: int, said: str, capsys: Any) -> None:
    assert main(words) == status
    out = capsys.readouterr()
    assert said in out.out + out.err


def test_interruption_is_no_plain_failure(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Lightning ends the program with status 1 for it."""

    def interrupted(*_: Any, **__: Any) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    monkeypatch.setattr("temporal_attn.lightning_cli.TemporalCLI", interrupted)
    assert main(["fit"]) == 130
    assert "interrupted" in one_line(capsys)


def test_a_locale_without_the_letters() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "temporal_attn", "cache", "frames", "--help"],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Most 10\\u2079 bytes" in done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough(unbuffered: str) -> None:
    """As in ``temporal-attn --help | head``, where the reader is gone before the program has begun."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "temporal_attn", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_termination_is_no_success(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Lightning turns SIGTERM into an exception that would leave the program with status 0."""
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    def terminated(*_: Any, **__: Any) -> None:
        raise SIGTERMException

    monkeypatch.setattr("temporal_attn.lightning_cli.TemporalCLI", terminated)
    assert main(["fit"]) == 143
    assert "terminated" in one_line(capsys)


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "temporal_attn", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "usage: temporal-attn" in done.stdout


def test_another_datamodules_package_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "datamodules").mkdir()
    (tmp_path / "datamodules" / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "temporal_attn", "--help"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "in the way" in done.stderr
