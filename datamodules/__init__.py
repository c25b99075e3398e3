"""Lightning datamodules that feed labelled video clips: `fit`, `validate`, `test` and `predict` on real files.

They need nothing of `temporal_attn` but the shapes in `temporal_attn.types`, and work with any LightningModule.
A name is imported when it is first asked for, so that loader workers start without Lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.base import VideoDataModule
    from datamodules.diving48 import Diving48DataModule
    from datamodules.folder import FolderDataModule
    from datamodules.hmdb51 import HMDB51DataModule
    from datamodules.jester import JesterDataModule
    from datamodules.kinetics import KineticsDataModule
    from datamodules.mmaction import MMActionDataModule
    from datamodules.ssv2 import SSv2DataModule
    from datamodules.synthetic import SyntheticDataModule
    from datamodules.table import TableDataModule
    from datamodules.ucf101 import UCF101DataModule

__all__ = [
    "Diving48DataModule",
    "FolderDataModule",
    "HMDB51DataModule",
    "JesterDataModule",
    "KineticsDataModule",
    "MMActionDataModule",
    "SSv2DataModule",
    "SyntheticDataModule",
    "TableDataModule",
    "UCF101DataModule",
    "VideoDataModule",
]

_MODULES = {
    "Diving48DataModule": "datamodules.diving48",
    "FolderDataModule": "datamodules.folder",
    "HMDB51DataModule": "datamodules.hmdb51",
    "JesterDataModule": "datamodules.jester",
    "KineticsDataModule": "datamodules.kinetics",
    "MMActionDataModule": "datamodules.mmaction",
    "SSv2DataModule": "datamodules.ssv2",
    "SyntheticDataModule": "datamodules.synthetic",
    "TableDataModule": "datamodules.table",
    "UCF101DataModule": "datamodules.ucf101",
    "VideoDataModule": "datamodules.base",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a name stands for is up to the name
    if name not in _MODULES:
        raise AttributeError(f"module 'datamodules' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
