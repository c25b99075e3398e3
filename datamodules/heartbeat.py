"""Signs of life: long work says that it goes on, so that whoever waits can tell it from work that hangs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["beat", "heard_by"]

_listeners: list[Callable[[], None]] = []


def beat() -> None:
    """Say that work goes on. Whoever reads or decodes calls it once a packet or block; nobody may be listening."""
    for listener in _listeners:
        listener()


@contextmanager
def heard_by(listener: Callable[[], None]) -> Iterator[None]:
    """Have each `beat` of this process call a function."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
