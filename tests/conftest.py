"""What every test shares: no network, few threads, and where real video lies."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from temporal_attn.allocator import keep_large_blocks

os.environ.setdefault("HF_HUB_OFFLINE", "1")
keep_large_blocks()
torch.set_num_threads(1)  # tests are tiny: a second thread only waits

_LOCAL = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that reaches for anything beyond this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else None
        if host is not None and host not in _LOCAL:
            raise AssertionError(f"a test tried to reach {host}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real videos beside the checkout; tests that need it are skipped without it."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no real video beside the checkout (../shared/data)")
    return path


@pytest.fixture(scope="session")
def tiny_ucf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in UCF101's layout: three classes told apart by their colour, 8 groups, folds 1 and 2.

    ``root/`` holds the videos, ``splits/`` the lists. Fold 1 tests on groups 1 and 2, fold 2 on groups 3 and 4.
    """
    from videos import write_video

    base = tmp_path_factory.mktemp("tiny_ucf")
    classes = {"Archery": (200, 40, 40), "Diving": (40, 200, 40), "Swing": (40, 40, 200)}
    (base / "splits").mkdir()
    index = "".join(f"{i} {name}\r\n" for i, name in enumerate(classes, 1))
    (base / "splits" / "classInd.txt").write_bytes(index.encode())
    rng = np.random.default_rng(0)
    listed = [(name, group) for name in classes for group in range(1, 9)]
    for name, group in listed:
        noise = rng.integers(-30, 30, (8, 48, 64, 3))
        frames = np.clip(np.asarray(classes[name]) + noise, 0, 255).astype(np.uint8)
        path = base / "root" / name / f"v_{name}_g{group:02d}_c01.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, frames, fps=8)
    for fold, held in ((1, (1, 2)), (2, (3, 4))):
        number = {name: i for i, name in enumerate(classes, 1)}
        train = [f"{n}/v_{n}_g{g:02d}_c01.avi {number[n]}\r\n" for n, g in listed if g not in held]
        test = [f"{n}/v_{n}_g{g:02d}_c01.avi\r\n" for n, g in listed if g in held]
        (base / "splits" / f"trainlist{fold:02d}.txt").write_bytes("".join(train).encode())
        (base / "splits" / f"testlist{fold:02d}.txt").write_bytes("".join(test).encode())
    return base
