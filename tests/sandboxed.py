"""What the tests let a child process do. The child imports this module, so it stays free of pytest and torch."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

import numpy as np

from datamodules.heartbeat import beat
from temporal_attn.types import VideoError


def process_id() -> int:
    return os.getpid()


def loaded_after_opening(path: str) -> set[str]:
    """Which heavy packages reading a video has loaded."""
    from datamodules.readers import open_reader

    with open_reader(path) as reader:
        reader.get_batch([0])
    return {"torch", "torchvision", "pytorch_lightning", "av"} & set(sys.modules)


def arrays(shape: tuple[int, ...], fill: int) -> dict[str, object]:
    return {
        "frames": np.full(shape, fill, np.uint8),
        "times": [np.arange(3.0), np.empty(0, np.int64)],
        "turned": np.arange(6).reshape(2, 3).T,
        "name": "clip",
    }


def hang_with_the_lock() -> None:
    """Never returns, in native code that keeps the interpreter's lock: no thread of the process can do anything."""
    ctypes.PyDLL(None).sleep(3600)


def hang_after_saying(path: str) -> None:
    """Writes its process id into a file, and never returns."""
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    hang_with_the_lock()


def work_slowly(steps: int, pause: float) -> str:
    """Takes longer than anything may take at a time, but says that it gets on."""
    for _ in range(steps):
        time.sleep(pause)
        beat()
    return "done"


def crash() -> None:
    ctypes.string_at(0)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    os._exit(3)


def answer(data: bytes) -> None:
    """Sends these bytes where an answer should come."""
    os.write(int(sys.argv[1]), data)
    time.sleep(3600)


def fail(kind: str) -> None:
    raise {
        "video": VideoError("inner.mp4", "is broken"),
        "key": KeyError("missing"),
        "memory": MemoryError(),
        "odd": type("Local", (Exception,), {})("cannot be pickled"),
    }[kind]
