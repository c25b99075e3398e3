"""A run that stops in mid-epoch goes on with exactly the clips that are left of the epoch, in the same order.

Lightning asks a loader that has `state_dict` and `load_state_dict` where it stands, and tells it so after a restart.
The place is counted in batches that training has finished, not in those that workers have fetched ahead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler

from datamodules.samplers import EpochSampler
from temporal_attn.types import VideoBatch

__all__ = ["ResumableLoader", "ResumableSampler"]

_log = logging.getLogger(__name__)


class ResumableSampler(DistributedSampler[Any]):
    """The order of another sampler, from where a run stopped.

    Lightning takes it for what it is, a sampler that knows its rank, and leaves it in place.

    Args:
        sampler: Decides the order of an epoch; its position is a function of the epoch alone.
        batch_size: Keys that make a batch.
        batches_done: Batches of the present epoch that training has finished.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, batches_done: Callable[[], int]) -> None:
        super().__init__(sampler.dataset, sampler.num_replicas, sampler.rank)
        self.sampler = sampler
        self.batch_size = batch_size
        self._batches_done = batches_done
        self._stopped_at = (-1, 0)  # epoch, batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        """Keys of a whole epoch: trainers count the batches of an epoch by it, those done before a stop included."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        """Keys of the epoch that are left."""
        epoch, batches = self._stopped_at
        return islice(self.sampler, batches * self.batch_size if epoch == self.epoch else 0, None)

    def state_dict(self) -> dict[str, int]:
        """Where training stands."""
        return {
            "epoch": self.epoch,
            "batches": self._batches_done(),
            "batch_size": self.batch_size,
            "num_replicas": self.num_replicas,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from where a run stood."""
        self._stopped_at = (state["epoch"], state["batches"])
        now = self.state_dict()
        changed = [name for name in ("batch_size", "num_replicas") if state[name] != now[name]]
        if changed:
            _log.warning(
                "the run stopped with another %s: the clips that are left of epoch %d are not exactly those it had not "
                "seen",
                " and ".join(changed),
                state["epoch"],
            )


class ResumableLoader(DataLoader[VideoBatch]):
    """A loader whose sampler is a `ResumableSampler`: what Lightning asks of a loader that can be resumed.

    Lightning may put a sampler of its own there, as ``overfit_batches`` does; such an epoch has no place to remember.
    """

    def __iter__(self) -> Iterator[VideoBatch]:  # type: ignore[override]  # nobody needs more of it
        """Batches; workers start when the first one is asked for.

        Lightning makes the iterator before it says which epoch it is, and workers would fetch ahead of the first.
        """
        yield from super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """Where training stands, see `ResumableSampler`; empty with another sampler."""
        return self.sampler.state_dict() if isinstance(self.sampler, ResumableSampler) else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there, where it is a place."""
        if state and isinstance(self.sampler, ResumableSampler):
            self.sampler.load_state_dict(state)
