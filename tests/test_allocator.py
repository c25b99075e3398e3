"""The allocator's settings: they take effect where glibc is, and nothing happens elsewhere."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from temporal_attn.allocator import keep_large_blocks

# Page faults of 50 blocks of 64 MiB that are written and freed one after the other, in a process of its own.
FAULTS = """
import resource, ctypes
from temporal_attn.allocator import keep_large_blocks
if {keep}: keep_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
size = 64 << 20
for _ in range(50):
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(keep: bool) -> int:
    code = FAULTS.format(keep=keep)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_blocks_are_kept() -> None:
    assert faults(keep=True) * 2 < faults(keep=False)


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert keep_large_blocks() is False
