"""A process that may be killed: native code that hangs or crashes in it costs one call, not the run.

Decoders are native code. On some files they loop for ever with the interpreter's lock in their hands, and on others
they crash, so that no thread and no exception handler can save the process. A `Sandbox` therefore calls functions in a
child process, within a time limit. The child is started once and used for many calls; it is killed and replaced when a
call fails in a way that only a process can survive. Slow is not hung: the time limit starts anew whenever the call says
that it gets on (`datamodules.heartbeat`), as readers do with each packet.

Requests go over a socket; the arrays of an answer through anonymous memory that both processes have open, so that
nothing is left behind whatever dies. The child imports what it is asked to call and nothing else, torch least of all.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from io import FileIO
from types import TracebackType
from typing import Any, Literal

from datamodules.heartbeat import heard_by
from temporal_attn.types import UnavailableVideo, UserError, VideoError

__all__ = ["Incident", "Sandbox", "is_available"]

_START_SECONDS = 120.0
"""A machine may be busy, but a child that takes longer than this to start never will."""
_BOOT = (
    "import sys; sys.path[:] = sys.argv[4:]; from datamodules.sandbox import _serve; _serve(*map(int, sys.argv[1:4]))"
)
_LENGTH = struct.Struct("<Q")
_LONGEST_MESSAGE = 1 << 30  # bytes; arrays do not count
_LAST_SECONDS = 5.0
_SIGNS = 8
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Incident(VideoError):
    """A call that ended with its process.

    Args:
        path: The file that was being read.
        reason: What happened, in words.
        kind: ``hang``: neither an answer nor progress within the time limit;
            ``crash``: the process died; ``garbage``: its answer was none.
    """

    def __init__(self, path: str, reason: str, kind: Literal["hang", "crash", "garbage"]) -> None:
        super().__init__(path, reason)
        self.kind = kind


def is_available() -> bool:
    """Whether this system can do it: it takes POSIX to hand open files to a child."""
    return os.name == "posix"


class Sandbox:
    """Calls functions in a child process that is killed when it hangs.

    A sandbox serves one thread. It may be pickled and inherited by fork: the copy starts a child of its own. On Linux
    the child is killed the moment its parent dies, elsewhere when twice the time limit of its call has passed.

    Args:
        timeout: Seconds that a call may take without any progress.

    Attributes:
        incidents: How many calls ended with their process, by kind (see `Incident`).

    Raises:
        UserError: The time limit is not positive, or the system is not POSIX.

    Example:
        >>> with Sandbox(timeout=60) as sandbox:
        ...     sandbox.call("clip.mp4", abs, -3)
        3
    """

    def __init__(self, timeout: float) -> None:
        if not timeout > 0:
            raise UserError(f"decode_timeout is {timeout} s; it has to be positive")
        if not is_available():
            raise UserError("sandbox: this system cannot hand open files to a child process; set sandbox: false")
        self.timeout = timeout
        self.incidents: Counter[str] = Counter()
        self._child: _Child | None = None

    def call(self, path: str, function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 - as the function
        """Run a function in the child.

        Args:
            path: The file that the call is about; errors name it.
            function: Of a module's top level; the child imports that module.
            args: Small values: they are pickled.

        Returns:
            What the function returns. Arrays inside are the caller's own.

        Raises:
            Incident: The call made no progress for too long, its process died, or it answered nonsense. The next call
                has a new child.
            UnavailableVideo: The child has not enough memory.
            Exception: What the function raised.
        """
        child = self._ready()
        try:
            answer, failure = child.ask((function.__module__, function.__qualname__, args), self.timeout)
        except TimeoutError:
            reason = f"decoding made no progress for {self.timeout:g} s; its process was killed"
            raise self._stopped(path, reason, "hang") from None
        except (EOFError, ConnectionError):
            raise self._stopped(path, f"its decoding process {child.cause_of_death()}", "crash") from None
        except ValueError as error:
            raise self._stopped(path, f"its decoding process answered nonsense ({error})", "garbage") from None
        except BaseException:  # an interrupted call leaves an answer on the way: nobody may read it later
            self.close()
            raise
        if not failure:
            return answer
        if isinstance(answer, MemoryError):
            raise UnavailableVideo(path, "there is not enough memory to decode it")
        raise answer from RuntimeError(f"in the decoding process:\n{failure}")

    def close(self) -> None:
        """Kill the child. A later call starts a new one."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _ready(self) -> _Child:
        if self._child is not None and self._child.is_foreign:
            self._child = None  # a fork's copy: the child answers to the process that started it
        if self._child is not None and self._child.has_ended:  # between two calls: no file is to blame
            self.close()
        if self._child is None:
            self._child = _Child()
            weakref.finalize(self, self._child.kill)
        return self._child

    def _stopped(self, path: str, reason: str, kind: Literal["hang", "crash", "garbage"]) -> Incident:
        self.close()
        self.incidents[kind] += 1
        return Incident(path, reason, kind)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Sandbox], tuple[float]]:
        return (Sandbox, (self.timeout,))


class _Child:
    """The process, the parent's end of the socket, and the memory that both have open."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._memory = _anonymous_memory()
        self._socket, theirs = socket.socketpair()
        with theirs:
            ends = (theirs.fileno(), self._memory.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, *map(str, (*ends, self._owner)), *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=ends,
            )
        try:
            self._receive(time.monotonic() + _START_SECONDS)
        except (TimeoutError, EOFError, ConnectionError):
            cause = self.cause_of_death()
            self.kill()
            raise RuntimeError(f"the decoding process {cause} before it could start") from None
        except BaseException:
            self.kill()
            raise

    @property
    def is_foreign(self) -> bool:
        """Whether another process started it."""
        return self._owner != os.getpid()

    @property
    def has_ended(self) -> bool:
        """Whether the process is no more."""
        return self._process.poll() is not None

    def ask(self, request: object, timeout: float) -> tuple[Any, str]:
        """Value of a call, or its exception and where it was raised."""
        message = pickle.dumps((timeout, request), protocol=5)
        self._socket.settimeout(timeout)
        self._socket.sendall(_LENGTH.pack(len(message)) + message)
        received = bytearray()
        while not received:  # an empty message is a sign of life
            received = self._receive(time.monotonic() + timeout)
        try:
            value, sizes, failure = pickle.loads(received)
            return pickle.loads(value, buffers=self._take(sizes)), failure
        except Exception as error:  # there is hardly an exception that broken pickles do not raise
            raise ValueError(f"{type(error).__name__}: {error}") from error

    def kill(self) -> None:
        """End the process, by the one that started it."""
        if not self.is_foreign:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a disk dies when it comes back
                self._process.wait(_LAST_SECONDS)
        self._socket.close()
        self._memory.close()

    def cause_of_death(self) -> str:
        """What became of the process, in words that follow its name."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_SECONDS)
        status = self._process.returncode
        if status is None:
            return "stopped answering"
        if status >= 0:
            return f"ended with status {status}"
        name = signal.Signals(-status).name
        return f"was killed by {name}" + (" (perhaps the memory ran out)" if name == "SIGKILL" else "")

    def _receive(self, deadline: float) -> bytearray:
        (length,) = _LENGTH.unpack(self._receive_exactly(_LENGTH.size, deadline))
        if length > _LONGEST_MESSAGE:
            raise ValueError(f"a message of {length} bytes")
        return self._receive_exactly(length, deadline)

    def _receive_exactly(self, size: int, deadline: float) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            self._socket.settimeout(remaining)
            count = self._socket.recv_into(rest)
            if not count:
                raise EOFError
            rest = rest[count:]
        return data

    def _take(self, sizes: list[int]) -> list[bytearray]:
        """Copies of the arrays in the memory, which is given back."""
        if sum(sizes) > os.fstat(self._memory.fileno()).st_size:
            raise ValueError("arrays that are not there")
        self._memory.seek(0)
        arrays = [bytearray(size) for size in sizes]
        for array in arrays:
            rest = memoryview(array)
            while rest:
                rest = rest[self._memory.readinto(rest) :]
        self._memory.truncate(0)
        return arrays


def _anonymous_memory() -> FileIO:
    """An open file that has no name: it is gone with the last process that has it open."""
    if hasattr(os, "memfd_create"):
        return FileIO(os.memfd_create("decoded-frames"), "r+")
    with tempfile.TemporaryFile() as file:
        return FileIO(os.dup(file.fileno()), "r+")


# In the child


def _serve(end: int, memory: int, parent: int) -> None:
    """Answer requests until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal interrupts all; the parent decides what ends
    _die_with(parent)
    with socket.socket(fileno=end) as connection, connection.makefile("rb") as requests, FileIO(memory, "r+") as shared:
        connection.sendall(_LENGTH.pack(0))
        while head := requests.read(_LENGTH.size):
            timeout, request = pickle.loads(requests.read(*_LENGTH.unpack(head)))
            signal.setitimer(signal.ITIMER_REAL, 2 * timeout)  # the kernel ends what the parent did not live to end
            with heard_by(_signs_of_life(connection, timeout)):
                message = _answer(request, shared)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.sendall(_LENGTH.pack(len(message)) + message)


def _signs_of_life(connection: socket.socket, timeout: float) -> Callable[[], None]:
    """What tells the parent that a call gets on, several times within the limit but not with each packet."""
    told_at = time.monotonic()

    def tell() -> None:
        nonlocal told_at
        if time.monotonic() - told_at > timeout / _SIGNS:
            connection.sendall(_LENGTH.pack(0))
            signal.setitimer(signal.ITIMER_REAL, 2 * timeout)
            told_at = time.monotonic()

    return tell


def _die_with(parent: int) -> None:
    """Be killed when the parent dies, where the kernel offers it."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be watched
        sys.exit()


def _answer(request: tuple[str, str, tuple[object, ...]], memory: FileIO) -> bytes:
    module, name, args = request
    arrays: list[pickle.PickleBuffer] = []
    try:
        function: Any = getattr(import_module(module), name)
        value = pickle.dumps(function(*args), protocol=5, buffer_callback=arrays.append)
        return pickle.dumps((value, _put(arrays, memory), ""), protocol=5)
    except Exception as error:
        return pickle.dumps((_portable(error), [], traceback.format_exc()), protocol=5)


def _put(arrays: list[pickle.PickleBuffer], memory: FileIO) -> list[int]:
    """Write arrays into the memory; how many bytes each takes."""
    memory.seek(0)
    views = [array.raw() for array in arrays]
    for rest in views:
        while rest:
            rest = rest[memory.write(rest) :]
    return [len(view) for view in views]


def _portable(error: Exception) -> bytes:
    """The exception, or its text where it cannot travel."""
    try:
        data = pickle.dumps(error, protocol=5)
        pickle.loads(data)
        return data
    except Exception:
        return pickle.dumps(RuntimeError(repr(error)), protocol=5)
