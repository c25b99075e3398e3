"""Videos on a disk: folders, names and patterns become files. Nothing is opened."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from datamodules.readers import VIDEO_SUFFIXES
from temporal_attn.types import UserError

__all__ = ["VideoFiles", "expand_paths", "leaves_root", "scan_videos", "stem_of"]

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class VideoFiles:
    """The videos below a folder, found by one scan that asks the disk for names only.

    A folder of images is a video too. One that holds video files beside its images, such as a class folder with a
    picture of each, counts as one only when somebody asks for it by name.

    Args:
        root: The folder.
        allow_outside: Whether links and names may lead out of the folder.

    Raises:
        UserError: The folder does not exist or cannot be listed, or a link leads out of it.
    """

    def __init__(self, root: str | Path, allow_outside: bool = False) -> None:
        self.root = Path(root)
        self.allow_outside = allow_outside
        self.names: list[str] = []
        """Sorted paths of the video files, relative to the root, ``/`` between folders."""
        self.image_folders: list[str] = []
        """Likewise of the folders of images, without those that hold video files as well."""
        self._by_key: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._num_images: dict[str, int] = {}
        for found in _walk(self.root, allow_outside):
            (self.image_folders if found.images else self.names).append(found.name)
            if found.images:
                self._num_images[str(self.root / found.name)] = found.images
            self._by_key[_key(found.name)].append(found.name)
            self._by_stem[PurePosixPath(stem_of(found.name)).name].append(found.name)
        with_videos = {name.rpartition("/")[0] for name in self.names}
        self.names.sort()
        self.image_folders = sorted(set(self.image_folders) - with_videos)

    def __str__(self) -> str:
        """What was found, for messages that say what was expected instead."""
        if not self._by_stem:
            return f"found no video in {self.root} ({', '.join(VIDEO_SUFFIXES)})"
        names = sorted(name for alike in self._by_stem.values() for name in alike)
        return f"found videos such as {names[0]} ({len(names):,} in all)"

    def find(self, name: str) -> str | None:
        """Path of the video at a listed place: the very file if it is there, else one that differs in its suffix,
        in letter case or in how accents are encoded, else a folder of images, else None.

        Lists name ``.avi`` files while the disk may hold another container, and UCF101 itself spells one class in two
        ways. A name that leads out of the root is looked up as it stands, and only if `allow_outside` is set.

        Args:
            name: Path relative to the root, ``/`` between folders; the suffix may be left out.
        """
        if leaves_root(name):
            path = self.root / name
            return str(path) if self.allow_outside and path.exists() else None
        alike = self._by_key.get(_key(name), [])
        if not alike:
            return None
        best = min(
            alike, key=lambda found: (found != name, stem_of(found) != stem_of(name), stem_of(found) == found, found)
        )
        return str(self.root / best)

    def count_images(self, path: str) -> int:
        """Images, of whatever kind, in a folder that `find` gave; 0 for a video file, and for what lies outside."""
        return self._num_images.get(path, 0)

    def find_by_id(self, video_id: str, folder: str | None = None) -> str | None:
        """Path of the video of that name without its suffix, in whatever folder, None if there is none.

        Args:
            video_id: Letter for letter: ids of video portals differ in case only.
            folder: A copy in a folder of this name is taken before others.
        """
        copies = self._by_stem.get(video_id, [])
        if not copies:
            return None
        return str(self.root / min(copies, key=lambda name: (folder not in PurePosixPath(name).parts[:-1], name)))


def scan_videos(root: Path, allow_outside: bool = False) -> list[str]:
    """Names of all video files below a folder, hidden ones left out.

    Args:
        root: The folder.
        allow_outside: Whether links may lead out of it.

    Returns:
        Sorted paths relative to root, ``/`` between folders.

    Raises:
        UserError: The folder does not exist or cannot be listed, or a link leads out of it.
    """
    return sorted(found.name for found in _walk(root, allow_outside) if not found.images)


def expand_paths(paths: Sequence[str | Path]) -> list[str]:
    """Files that a user's words stand for.

    Args:
        paths: Files (of any suffix), folders (all videos below, links followed; folders of images are videos) and glob
            patterns (``**`` crosses folders).

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
            files = _videos_of(Path(path))
            if not files:
                raise UserError(
                    f"{path}: holds no video; known suffixes are {' '.join(VIDEO_SUFFIXES)}, and those of images in a "
                    f"folder of frames {' '.join(_IMAGE_SUFFIXES)}"
                )
        elif glob.has_magic(path) and not os.path.exists(path):
            matches = sorted(glob.glob(path, recursive=True))
            folders = {match for match in matches if os.path.isdir(match) and _holds_frames(match)}
            files = [Path(match).as_posix() for match in matches if match in folders or _is_video_of(match, folders)]
            if not files:
                raise UserError(f"{path}: the pattern fits no file; check it, and quote it for the shell")
        else:
            files = [Path(path).as_posix()]
        found.update(dict.fromkeys(files))
    return list(found)


def _videos_of(folder: Path) -> list[str]:
    """Videos below a folder; the folder itself where it holds images and no video lies below."""
    inside = VideoFiles(folder, allow_outside=True)
    if names := sorted([*inside.names, *inside.image_folders]):
        return [(folder / name).as_posix() for name in names]
    return [folder.as_posix()] if _holds_frames(str(folder)) else []


def _holds_frames(folder: str) -> bool:
    """Whether images lie in a folder, and no video beside them."""
    names = [entry.name.lower() for entry in _listing(folder) if not entry.name.startswith(".")]
    return any(map(_is_image, names)) and not any(name.endswith(VIDEO_SUFFIXES) for name in names)


def _is_image(name: str) -> bool:
    return name.lower().endswith(_IMAGE_SUFFIXES)


def _is_video_of(match: str, folders: Container[str]) -> bool:
    """Whether what a pattern fits is a file of its own, and not an image of a folder that it fits too."""
    return os.path.isfile(match) and not (_is_image(match) and os.path.dirname(match) in folders)


def stem_of(name: str) -> str:
    """Name without a video's suffix; a dot elsewhere is part of the name."""
    return name.rsplit(".", 1)[0] if name.lower().endswith(VIDEO_SUFFIXES) else name


def leaves_root(name: str) -> bool:
    """Whether a path, ``/`` between its folders, is absolute or climbs with ``..``."""
    parts = PurePosixPath(name).parts
    return name.startswith("/") or ".." in parts or (bool(parts) and parts[0].endswith(":"))


class _Found(NamedTuple):
    """A video file, or a folder of some images."""

    name: str
    images: int


def _walk(root: Path, allow_outside: bool) -> Iterator[_Found]:
    """Videos and folders of images. A listing says what is a folder or a link, so that only links are asked about."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder that holds the videos")
    top = os.path.realpath(root)
    waiting: list[tuple[str, str, tuple[str, ...]]] = [(str(root), "", (top,))]
    while waiting:
        folder, inside, way = waiting.pop()
        images = 0
        for entry in _listing(folder):
            if entry.name.startswith("."):
                continue
            real = os.path.join(way[-1], entry.name)
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
                if not allow_outside and not Path(real).is_relative_to(top) and _matters(entry):
                    raise UserError(
                        f"{entry.path}: a link to {real}, outside {root}; set allow_outside: true if that is meant"
                    )
            if entry.is_dir():
                if real not in way:  # otherwise a link back to where the walk came from
                    waiting.append((entry.path, f"{inside}{entry.name}/", (*way, real)))
            elif entry.name.lower().endswith(VIDEO_SUFFIXES):
                yield _Found(f"{inside}{entry.name}", 0)
            else:
                images += _is_image(entry.name)
        if images and inside:
            yield _Found(inside[:-1], images)


def _listing(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; make the folder readable or take it out") from None


def _matters(entry: os.DirEntry[str]) -> bool:
    """Whether a link could be taken for videos."""
    return entry.is_dir() or entry.name.lower().endswith((*VIDEO_SUFFIXES, *_IMAGE_SUFFIXES))


def _key(name: str) -> str:
    """What is equal for names that mean the same file: macOS stores accents as characters of their own."""
    return unicodedata.normalize("NFC", stem_of(name)).casefold()
