"""Plain lists, and folders of classes without any list."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from datamodules.files import VideoFiles, leaves_root
from datamodules.records.catalogue import Entry
from datamodules.records.lists import read_lines, relative_name, unrepeated
from datamodules.records.parts import part_called
from temporal_attn.types import UserError

__all__ = ["list_folder", "read_path_list"]


def read_path_list(path: Path, allow_outside: bool = False, root: str | Path | None = None) -> list[Entry]:
    """Videos of a plain list.

    Args:
        path: Lines ``<class>/<video>``, the suffix is optional and spaces are allowed. A path from outside ends so. A
            folder in front of the class that says the part, such as ``train/<class>/<video>``, is no class, if all
            lines have one.
        allow_outside: Whether lines may lead out of the videos' folder.
        root: The videos' folder, below which absolute paths are understood.

    Raises:
        UserError: The file is missing; or a line has another form, points outside the root or appears twice.
    """
    names = []
    for where, line in read_lines(path, "'<class>/<video>'"):
        name = PurePosixPath(relative_name(line, where, allow_outside, root))
        if len(name.parts) < 2:
            raise UserError(f"{where}: expected '<class>/<video>', found {line!r}")
        names.append((where, name))
    depth = int(all(len(name.parts) > 2 and part_called(name.parts[0]) for _, name in names))
    return unrepeated((where, Entry(name.as_posix(), _class_of(name, depth))) for where, name in names)


def _class_of(name: PurePosixPath, depth: int) -> str:
    return name.parent.name if leaves_root(name.as_posix()) else name.parts[depth]


def list_folder(files: VideoFiles, split: str | None = None) -> list[Entry]:
    """Videos, files and folders of images, that lie in a class folder of the root, or of one split's folder.

    Args:
        files: What the scan found.
        split: Folder of the class folders; None for the root itself.

    Raises:
        UserError: Two videos differ in their suffix only.
    """
    depth = 0 if split is None else 1
    entries = []
    for name in sorted([*files.names, *files.image_folders]):
        parts = PurePosixPath(name).parts
        if len(parts) > depth + 1 and (split is None or parts[0] == split):
            entries.append(Entry(name, parts[depth]))
    ids = Counter(entry.id for entry in entries)
    for entry in entries:
        if ids[entry.id] > 1:
            raise UserError(
                f"{files.root / entry.id}: two videos differ in their suffix only; rename or remove one (a folder of "
                "images is a video too)"
            )
    return entries
