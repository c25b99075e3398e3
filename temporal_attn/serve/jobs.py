"""Inspections that wait, run one after the other, and can be taken back."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from temporal_attn.keyframes.inspection import Inspection
from temporal_attn.types import UserError, VideoError

__all__ = ["Busy", "Job", "Jobs", "Progress"]

log = logging.getLogger(__name__)

Progress = Callable[[str], None]
"""Called with the name of each stage; raises when the job has to end."""

_KEPT = 16
"""Jobs that are done and can still be looked at; each holds the pictures of its clip."""


class Busy(Exception):
    """As many jobs wait or run as are allowed."""


class _Ended(Exception):
    """A job that has to stop, and why."""


@dataclass
class Job:
    """One inspection.

    Args:
        id: What a client calls it.
        video: Id of the video.
        question: The request, as it was understood.
        steps: Stages that a whole inspection has, for the share that is done.
    """

    id: str
    video: str
    question: dict[str, Any]
    steps: int
    status: str = "queued"
    stage: str = ""
    done: int = 0
    error: str | None = None
    result: Inspection | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        share = 1.0 if self.status == "done" else min(self.done / self.steps, 0.99)
        return {
            "id": self.id,
            "video": self.video,
            "question": self.question,
            "status": self.status,
            "stage": self.stage,
            "progress": round(share, 3),
            "error": self.error,
            "verdict": self.result.verdict if self.result else None,
        }


class Jobs:
    """A queue with one worker.

    A job looks between its stages whether it was taken back or has used up its time.

    Args:
        limit: Jobs that wait or run at the same time.
        wait: Seconds that a job may run.
    """

    def __init__(self, limit: int, wait: float) -> None:
        self._limit, self._wait = limit, wait
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="inspect")
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()

    def start(self, video: str, question: dict[str, Any], steps: int, work: Callable[[Progress], Inspection]) -> Job:
        """Queue a job.

        Raises:
            Busy: Too many are waiting.
        """
        with self._lock:
            if sum(job.status in ("queued", "running") for job in self._jobs.values()) >= self._limit:
                raise Busy(f"{self._limit} inspections are waiting; try again when one is done")
            job = Job(secrets.token_hex(8), video, question, steps)
            self._jobs[job.id] = job
            for old in [known for known in self._jobs.values() if known.status not in ("queued", "running")][:-_KEPT]:
                del self._jobs[old.id]
        self._pool.submit(self._run, job, work)
        return job

    def get(self, id_: str) -> Job | None:
        """The job of this id; the oldest that are done are forgotten."""
        with self._lock:
            return self._jobs.get(id_)

    def cancel(self, job: Job) -> None:
        """Take a job back; one that runs ends after its stage."""
        job.cancelled.set()
        if job.status == "queued":
            job.status = "cancelled"

    def close(self) -> None:
        """End all jobs."""
        for job in self._jobs.values():
            job.cancelled.set()
        self._pool.shutdown(cancel_futures=True)

    def _run(self, job: Job, work: Callable[[Progress], Inspection]) -> None:
        end = time.monotonic() + self._wait

        def progress(stage: str) -> None:
            if job.cancelled.is_set():
                raise _Ended
            if time.monotonic() > end:
                raise UserError(f"the inspection took longer than {self._wait:.0f} s")
            job.stage, job.done = stage, job.done + 1

        try:
            progress("frames")
            job.status = "running"
            job.result = work(progress)
            job.status = "done"
        except _Ended:
            job.status = "cancelled"
        except (UserError, VideoError) as error:
            job.status, job.error = "failed", str(error)
        except Exception as error:  # a job must end in words, or its client waits for ever
            log.exception("inspection %s", job.id)
            job.status, job.error = "failed", f"{type(error).__name__}; see the server's log"
