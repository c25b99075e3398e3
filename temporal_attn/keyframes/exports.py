"""The files of an inspection by name: data, pages, pictures, a film and cut lists."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from temporal_attn.keyframes.cuts import check_name, edit_decision_list, ffconcat
from temporal_attn.keyframes.film import write_film
from temporal_attn.keyframes.pictures import jpeg, png
from temporal_attn.keyframes.report import render_report
from temporal_attn.keyframes.sheets import contact_sheet, film_strip
from temporal_attn.keyframes.tables import frame_rows, rows_to_csv, write_parquet
from temporal_attn.types import UserError

if TYPE_CHECKING:
    from temporal_attn.keyframes.inspection import InspectedFrame, Inspection

__all__ = ["DEFAULT_FORMATS", "FILES", "FORMATS", "named_formats", "save_files"]

FILES = {
    "json": "scores.json",
    "csv": "scores.csv",
    "html": "report.html",
    "strip": "strip.png",
    "contact-sheet": "contact_sheet.png",
    "video": "overlay.mp4",
    "parquet": "scores.parquet",
    "ffconcat": "keyframes.ffconcat",
    "edl": "keyframes.edl",
}
"""What a format writes, of those that write one file."""

_PICTURE_FILE = re.compile(r"(keyframe_\d+|thumb_\d+)_-?\d+\.\d{3}s_frame\d+\.jpg")
_THUMBNAIL = 320


def _json(inspection: Inspection, folder: Path) -> None:
    text = json.dumps(inspection.scores(), indent=2, allow_nan=False)
    (folder / FILES["json"]).write_text(text + "\n", encoding="utf-8")


def _csv(inspection: Inspection, folder: Path) -> None:
    (folder / FILES["csv"]).write_bytes(rows_to_csv(inspection.scores()).encode())


def _parquet(inspection: Inspection, folder: Path) -> None:
    write_parquet(frame_rows(inspection.scores(), Path(inspection.video).stem), folder / FILES["parquet"])


def _html(inspection: Inspection, folder: Path) -> None:
    (folder / FILES["html"]).write_text(render_report(inspection), encoding="utf-8", newline="\n")


def _keyframes(inspection: Inspection, folder: Path) -> None:
    for frame, image in zip(inspection.keyframes, inspection.originals, strict=True):
        (folder / _named(f"keyframe_{frame.rank:02d}", frame)).write_bytes(jpeg(image, quality=92))


def _thumbs(inspection: Inspection, folder: Path) -> None:
    for number, (frame, image) in enumerate(zip(inspection.frames, inspection.pictures, strict=True), start=1):
        (folder / _named(f"thumb_{number:03d}", frame)).write_bytes(jpeg(image, longest=_THUMBNAIL))


def _strip(inspection: Inspection, folder: Path) -> None:
    (folder / FILES["strip"]).write_bytes(png(film_strip(inspection)))


def _contact_sheet(inspection: Inspection, folder: Path) -> None:
    (folder / FILES["contact-sheet"]).write_bytes(png(contact_sheet(inspection)))


def _video(inspection: Inspection, folder: Path) -> None:
    write_film(inspection, folder / FILES["video"])


def _ffconcat(inspection: Inspection, folder: Path) -> None:
    (folder / FILES["ffconcat"]).write_text(ffconcat(inspection), encoding="utf-8", newline="\n")


def _edl(inspection: Inspection, folder: Path) -> None:
    (folder / FILES["edl"]).write_text(edit_decision_list(inspection), encoding="utf-8", newline="\n")


FORMATS: dict[str, Callable[[Inspection, Path], None]] = {
    "json": _json,
    "csv": _csv,
    "html": _html,
    "keyframes": _keyframes,
    "strip": _strip,
    "contact-sheet": _contact_sheet,
    "video": _video,
    "parquet": _parquet,
    "ffconcat": _ffconcat,
    "edl": _edl,
    "thumbs": _thumbs,
}
"""What can be written, by name."""

DEFAULT_FORMATS = ("json", "csv", "html", "keyframes")


def named_formats(formats: str | Sequence[str]) -> list[str]:
    """The names of the formats, ``all`` spelled out.

    Args:
        formats: Names in a list, or as text with commas between.

    Raises:
        UserError: A name that is not in `FORMATS`.
    """
    if isinstance(formats, str):
        formats = [name.strip() for name in formats.strip("[] ").split(",")]
    for name in formats:
        if name not in FORMATS and name != "all":
            raise UserError(f"formats: there is no {name!r}; choose of {', '.join([*FORMATS, 'all'])}")
    return list(FORMATS) if "all" in formats else list(formats)


def save_files(inspection: Inspection, folder: Path, formats: str | Sequence[str]) -> Path:
    """Write the files of an inspection; see `Inspection.save`."""
    names = named_formats(formats)
    if "ffconcat" in names:
        check_name(inspection.video)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.iterdir():
            if _PICTURE_FILE.fullmatch(stale.name):
                stale.unlink()
        for name in names:
            FORMATS[name](inspection, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None
    return folder / FILES["html"] if "html" in names else folder


def _named(start: str, frame: InspectedFrame) -> str:
    return f"{start}_{frame.pts:.3f}s_frame{frame.index:04d}.jpg"
