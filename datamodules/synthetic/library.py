"""Rendered videos on disk: encoded once, group by group, and found again by their names.

    <root>/<task>-<settings>/settings.json                   what the pictures depend on; other settings, other folder
    <root>/<task>-<settings>/<Class>/v_<Class>_g01_c02.mp4   a video
    <root>/<task>-<settings>/<Class>/v_<Class>_g01_c02.json  what is known of it, beside it
    <root>/<task>-<settings>/g01.json                        names and bytes of the group's files, written last

A group is trusted only when its list is there and every file has the bytes listed; an interrupted rendering is carried
on with the groups that are not. Files appear under their names in one step, so several processes may render at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.synthetic.tasks import RenderedVideo, Task
from temporal_attn.types import VideoError

__all__ = ["Library", "key_frames", "write_video"]

FRAME_RATE = Fraction(25, 2)

# Each frame is coded by itself at a fixed quantiser, without any decision that depends on its neighbours. A video
# played backwards is then encoded to the same pictures backwards, and no trace of the codec tells a pair apart.
_ENCODER = {"g": "1", "bf": "0", "qp": "16", "preset": "veryfast", "threads": "1"}


def write_video(path: Path, frames: NDArray[np.uint8]) -> None:
    """Encode frames as H.264 in MP4, each frame independently of the others.

    Args:
        path: File to write.
        frames: (N, H, W, 3) uint8 RGB, H and W even.
    """
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options=_ENCODER)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


def key_frames(path: str | Path) -> tuple[int, ...]:
    """Frames that alone decide the class of a synthetic video, as written beside it.

    Args:
        path: The video.

    Returns:
        Their indices in display order, ascending; empty where no few frames decide.

    Raises:
        VideoError: There is no such note beside the video.
    """
    try:
        known = json.loads(Path(path).with_suffix(".json").read_text(encoding="utf-8"))
        return tuple(int(index) for index in known["key_frames"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VideoError(str(path), f"no key frames are noted in a .json file beside it ({error})") from None


@dataclass(frozen=True)
class Library:
    """The videos of one task under one root.

    Args:
        root: Folder that holds the folders of all settings.
        task: What to render.
        clips: Videos of each class in a group.
        seed: Of all that is drawn.
    """

    root: Path
    task: Task
    clips: int
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """All that the files depend on."""
        encoder = {**_ENCODER, "frame_rate": str(FRAME_RATE)}
        return {
            "task": self.task.name,
            "version": self.task.version,
            "classes": list(self.task.class_names),
            "clips": self.clips,
            "seed": self.seed,
            "encoder": encoder,
        }

    @property
    def folder(self) -> Path:
        """Where the videos of these settings lie."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return self.root / f"{self.task.name}-{digest[:10]}"

    def video_id(self, class_name: str, group: int, clip: int) -> str:
        """Name of a video within the folder, without its suffix."""
        return f"{class_name}/v_{class_name}_g{group:02d}_c{clip:02d}"

    def path(self, class_name: str, group: int, clip: int) -> Path:
        """File of a video."""
        return self.folder / f"{self.video_id(class_name, group, clip)}.mp4"

    def missing(self, groups: Sequence[int]) -> list[int]:
        """Those of some groups that are not completely on disk."""
        return [group for group in groups if not self._is_complete(group)]

    def render(self, group: int) -> None:
        """Render, encode and write all videos of a group."""
        for name in self.task.class_names:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        _write_json(self.folder / "settings.json", self.settings)
        videos = self.task.render_group(self.seed, group, self.clips)
        files = [file for video in videos for file in self._write(video, group)]
        _write_json(
            self._list(group), {file.relative_to(self.folder).as_posix(): file.stat().st_size for file in files}
        )

    def _write(self, video: RenderedVideo, group: int) -> tuple[Path, Path]:
        path = self.path(video.class_name, group, video.clip)
        note = path.with_suffix(".json")
        _write_json(note, {"class": video.class_name, "group": group, "key_frames": list(video.key_frames)})
        partial = _partial(path)
        try:
            write_video(partial, video.frames)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return path, note

    def _list(self, group: int) -> Path:
        return self.folder / f"g{group:02d}.json"

    def _is_complete(self, group: int) -> bool:
        with suppress(OSError, ValueError):
            sizes = json.loads(self._list(group).read_text(encoding="utf-8"))
            return all((self.folder / name).stat().st_size == size for name, size in sizes.items())
        return False


def _write_json(path: Path, content: dict[str, Any]) -> None:
    partial = _partial(path)
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _partial(path: Path) -> Path:
    """A new hidden file beside the one to write."""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".part", dir=path.parent)
    os.close(handle)
    return Path(name)
