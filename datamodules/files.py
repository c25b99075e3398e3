"""Videos on a disk: folders, names and patterns become files. Nothing is opened."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from datamodules.readers import VIDEO_SUFFIXES
from temporal_attn.types import UserError

__all__ = ["VideoFiles", "expand_paths", "scan_videos", "stem_of"]


class VideoFiles:
    """The videos below a folder, found by one scan, and looked up by name without the suffix or letter case.

    Lists name ``.avi`` files while the disk may hold another container, and UCF101 itself spells one class in two ways.

    Args:
        root: The folder.

    Raises:
        UserError: The folder does not exist.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.names = scan_videos(self.root)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            self._by_stem[stem_of(name).casefold()].append(name)

    def find(self, name: str) -> str | None:
        """Path of a listed video: the very file if it is there, else another container of that name, else None."""
        same_stem = self._by_stem.get(stem_of(name).casefold(), [])
        if not same_stem:
            return None
        best = min(same_stem, key=lambda found: (found != name, stem_of(found) != stem_of(name), found))
        return str(self.root / best)


def scan_videos(root: Path) -> list[str]:
    """Names of all videos below a folder, links followed, hidden files left out.

    Args:
        root: The folder.

    Returns:
        Sorted paths relative to root, ``/`` between folders.

    Raises:
        UserError: The folder does not exist.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder that holds the videos")
    names = []
    visited: set[tuple[int, int]] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:  # a link back to where the walk has been
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        inside = Path(folder).relative_to(root)
        names += [(inside / file).as_posix() for file in files if _is_video(file)]
    return sorted(names)


def expand_paths(paths: Sequence[str | Path]) -> list[str]:
    """Files that a user's words stand for.

    Args:
        paths: Files (of any suffix), folders (all videos below) and glob patterns (``**`` crosses folders).

    Returns:
        Each file once, in the order given. A plain name that does not exist stays: reading it will say so.

    Raises:
        UserError: Nothing is given, a folder holds no video, or a pattern fits nothing.
    """
    if not paths:
        raise UserError("no video is given; name files, folders or patterns such as 'clips/*.mp4'")
    found: dict[str, None] = {}
    for path in map(str, paths):
        if os.path.isdir(path):
            files = [(Path(path) / name).as_posix() for name in scan_videos(Path(path))]
            if not files:
                raise UserError(f"{path}: holds no video; known suffixes are {' '.join(VIDEO_SUFFIXES)}")
        elif glob.has_magic(path) and not os.path.exists(path):
            matches = sorted(glob.glob(path, recursive=True))
            files = [Path(match).as_posix() for match in matches if os.path.isfile(match)]
            if not files:
                raise UserError(f"{path}: the pattern fits no file; check it, and quote it for the shell")
        else:
            files = [Path(path).as_posix()]
        found.update(dict.fromkeys(files))
    return list(found)


def stem_of(name: str) -> str:
    """Name without a video's suffix; a dot elsewhere is part of the name."""
    return name.rsplit(".", 1)[0] if name.lower().endswith(VIDEO_SUFFIXES) else name


def _is_video(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(VIDEO_SUFFIXES)
