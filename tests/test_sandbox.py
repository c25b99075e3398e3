from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sandboxed
from videos import numbered_frames, read_numbers, write_text, write_video

from datamodules.decoding import SafeOpener, SandboxedReader
from datamodules.heartbeat import heard_by
from datamodules.readers import Reader, open_reader
from datamodules.readers.scan import scan_video
from datamodules.sandbox import Incident, Sandbox
from temporal_attn.types import UnavailableVideo, UserError, VideoError

GENEROUS = 60.0
SHORT = 0.5


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(GENEROUS) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return str(write_video(tmp_path_factory.mktemp("video") / "clip.mp4", numbered_frames(30), fps=10))


def is_alive(pid):
    """Whether a process runs; one that only waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def is_buriable(pid):
    """Whether a child of ours has ended with all its threads, which outlive the first one for a moment."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait_until(holds):
    deadline = time.monotonic() + GENEROUS
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert holds()


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("shape", [(2, 3, 4, 3), (0, 5), (300, 240, 320, 3)])
def test_answers_are_those_of_the_function(sandbox, shape):
    assert_same(sandbox.call("x", sandboxed.arrays, shape, 7), sandboxed.arrays(shape, 7))


def test_arrays_are_the_callers_own(sandbox):
    first = sandbox.call("x", sandboxed.arrays, (4, 4), 1)["frames"]
    second = sandbox.call("x", sandboxed.arrays, (4, 4), 2)["frames"]
    first[0] += 5
    assert first.tolist() == [[6] * 4, *[[1] * 4] * 3]
    assert (second == 2).all()


def test_one_child_serves_many_calls(sandbox):
    pids = {sandbox.call("x", sandboxed.process_id) for _ in range(5)}
    assert len(pids) == 1
    assert os.getpid() not in pids


def test_the_child_loads_no_torch(video):
    with Sandbox(GENEROUS) as fresh:
        assert fresh.call(video, sandboxed.loaded_after_opening, video) == {"av"}


def test_exceptions_come_through(sandbox):
    pid = sandbox.call("x", sandboxed.process_id)
    with pytest.raises(VideoError, match=r"inner\.mp4: is broken") as raised:
        sandbox.call("outer.mp4", sandboxed.fail, "video")
    assert not isinstance(raised.value, Incident)
    with pytest.raises(KeyError, match="missing") as raised:
        sandbox.call("x", sandboxed.fail, "key")
    assert "in fail" in str(raised.value.__cause__)  # where it was raised
    with pytest.raises(RuntimeError, match="cannot be pickled"):
        sandbox.call("x", sandboxed.fail, "odd")
    with pytest.raises(UnavailableVideo, match=r"big\.mp4: there is not enough memory"):
        sandbox.call("big.mp4", sandboxed.fail, "memory")
    assert sandbox.call("x", sandboxed.process_id) == pid
    assert not sandbox.incidents


@pytest.mark.parametrize(
    ("function", "args", "kind", "reason"),
    [
        (sandboxed.hang_with_the_lock, (), "hang", "made no progress for 0.5 s"),
        (sandboxed.crash, (), "crash", "was killed by SIGSEGV"),
        (sandboxed.be_killed, (), "crash", "was killed by SIGKILL"),
        (sandboxed.leave, (), "crash", "ended with status 3"),
        (sandboxed.answer, (struct.pack("<Q", 5) + b"hello",), "garbage", "answered nonsense"),
        (sandboxed.answer, (struct.pack("<Q", 2**40),), "garbage", "answered nonsense"),
        (
            sandboxed.answer,
            (struct.pack("<Q", 60) + pickle.dumps((b"", [10**6], ""))[:60].ljust(60, b"."),),
            "garbage",
            "",
        ),
        (sandboxed.answer, (struct.pack("<Q", 500) + b"half of it",), "hang", "made no progress"),
    ],
)
def test_what_only_a_process_survives_costs_one_call(function, args, kind, reason):
    with Sandbox(GENEROUS) as sandbox:
        before = sandbox.call("x", sandboxed.process_id)
        sandbox.timeout = SHORT if kind == "hang" else GENEROUS
        with pytest.raises(Incident, match=r"clip\.mp4: .*" + reason) as raised:
            sandbox.call("clip.mp4", function, *args)
        assert raised.value.kind == kind
        assert sandbox.incidents == {kind: 1}
        assert not is_alive(before)
        sandbox.timeout = GENEROUS
        after = sandbox.call("x", sandboxed.process_id)
        assert after != before
    assert not is_alive(after)


def test_slow_work_is_not_hung():
    with Sandbox(timeout=2.0) as sandbox:
        sandbox.call("x", sandboxed.process_id)
        assert sandbox.call("long.mp4", sandboxed.work_slowly, 6, 0.5) == "done"
        sandbox.timeout = SHORT
        with pytest.raises(Incident, match=r"long\.mp4: decoding made no progress for 0\.5 s"):
            sandbox.call("long.mp4", sandboxed.work_slowly, 1, 3600)


def test_decoding_gives_signs_of_life(video):
    beats = []
    with heard_by(lambda: beats.append(1)):
        frames = len(scan_video(video))
        assert len(beats) > 2 * frames  # reading, and at least once decoding
        beats.clear()
        with open_reader(video, "pyav") as reader:
            reader.get_batch([frames - 1])
        assert len(beats) > 1
    beats.clear()
    scan_video(video)
    assert not beats


def test_a_child_killed_between_calls_costs_nothing(sandbox):
    pid = sandbox.call("x", sandboxed.process_id)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_buriable(pid))
    assert sandbox.call("x", sandboxed.process_id) != pid
    assert not sandbox.incidents


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends a child with its parent at once")
def test_a_hanging_child_dies_with_a_parent_that_is_killed(tmp_path):
    script = (
        f"import sys; sys.path[:] = {sys.path!r}\nimport sandboxed\nfrom datamodules.sandbox import Sandbox\n"
        f"Sandbox(1000).call('x', sandboxed.hang_after_saying, {str(tmp_path / 'pid')!r})"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        child = int((tmp_path / "pid").read_text())
        assert is_alive(child)
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not is_alive(child))


def report_pid(sandbox, results):
    results.put(sandbox.call("x", sandboxed.process_id))
    sandbox.close()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_copy_has_a_child_of_its_own(sandbox, context):
    pid = sandbox.call("x", sandboxed.process_id)
    start = multiprocessing.get_context(context)
    results = start.Queue()
    process = start.Process(target=report_pid, args=(sandbox, results))
    process.start()
    assert results.get(timeout=GENEROUS) != pid
    process.join()
    assert sandbox.call("x", sandboxed.process_id) == pid


def test_nothing_is_left_open_or_in_memory():
    def open_files():
        return len(os.listdir("/proc/self/fd"))

    shared = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    before = open_files()
    for _ in range(3):
        with Sandbox(GENEROUS) as sandbox:
            for _ in range(2):
                sandbox.call("x", sandboxed.arrays, (50, 100, 100), 1)
                with pytest.raises(Incident):
                    sandbox.call("x", sandboxed.be_killed)
            assert open_files() <= before + 3
    assert open_files() == before
    assert (set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()) <= shared


def test_wrong_use():
    with pytest.raises(UserError, match="decode_timeout is 0"):
        Sandbox(0)


# Readers in a child


def test_a_sandboxed_reader_is_a_reader(sandbox, video):
    with open_reader(video, short_side=48) as plain, SandboxedReader(sandbox, video, short_side=48) as reader:
        assert isinstance(reader, Reader)
        assert (reader.engine, reader.fps, reader.size, len(reader)) == (plain.engine, plain.fps, plain.size, 30)
        assert np.array_equal(reader.pts, plain.pts)
        for indices in ([3, 3, 29, 0], [], [12]):
            assert np.array_equal(reader.get_batch(indices), plain.get_batch(indices))
        assert read_numbers(reader.get_batch([7, 2])) == [7, 2]
        with pytest.raises(IndexError, match="frame 30 of 30"):
            reader.get_batch([30])


def test_errors_name_the_file(sandbox, tmp_path):
    with pytest.raises(VideoError, match=r"words\.mp4: not a video"):
        SandboxedReader(sandbox, str(write_text(tmp_path / "words.mp4")))
    with pytest.raises(UserError, match="unknown engine 'vlc'"):
        SandboxedReader(sandbox, str(tmp_path / "words.mp4"), "vlc")


def test_a_reader_whose_child_is_gone_says_so(video):
    with Sandbox(GENEROUS) as sandbox, SandboxedReader(sandbox, video) as reader:
        pid = sandbox.call("x", sandboxed.process_id)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_buriable(pid))
        with pytest.raises(VideoError, match=r"clip\.mp4: .* lost between opening and reading"):
            reader.get_batch([0])


def test_a_file_that_cannot_even_be_opened_costs_the_time_limit(tmp_path, video):
    endless = tmp_path / "endless.mp4"
    os.mkfifo(endless)  # whoever opens it waits for a writer that never comes
    opener = SafeOpener(timeout=SHORT)
    with pytest.raises(Incident, match=r"endless\.mp4: decoding made no progress for 0\.5 s"):
        opener(str(endless))
    opener = SafeOpener(timeout=GENEROUS)
    with opener(video) as reader:
        assert isinstance(reader, SandboxedReader)
        assert read_numbers(reader.get_batch([5])) == [5]


def test_without_a_sandbox_files_are_read_here(video):
    with SafeOpener(sandbox=False)(video) as reader:
        assert not isinstance(reader, SandboxedReader)
