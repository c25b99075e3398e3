"""Write the table of ``temporal-attn bench decode --json FILE`` into docs/data.md, between its two markers.

temporal-attn bench decode --root DIR --json decode.json
python scripts/decode_table.py decode.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "data.md"
BEGIN, END = "<!-- bench decode: begin -->", "<!-- bench decode: end -->"
SCHEMA = "temporal-attn/bench-decode/1"


def section(result: dict[str, Any]) -> str:
    """Markdown of a result: what it was measured on, and a row for each kind of file and reader.

    Args:
        result: Content of the JSON file.
    """
    described = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    lines = [
        f"{described['processor']}, {described['cores']} cores; Python {described['python']}; {versions}. CPU time of",
        "8 uniform frames at short side 128, file opened anew, readers interleaved; the interval is over pairs.",
        "",
        "| kind | reader | files | CPU ms | × decord | 95 % | exact |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        ratio = row["ratio_to_decord"]
        if ratio is None and "ratio_to_one_worker" in row:
            ratio = row["ratio_to_one_worker"]
        low_high = "" if row["ratio_ci"] is None else "{:.2f} to {:.2f}".format(*row["ratio_ci"])
        cells = (
            row["kind"],
            row["reader"],
            str(row["files"]),
            "" if row["cpu_ms"] is None else f"{row['cpu_ms']:.3g}",
            "" if ratio is None else f"{ratio:.2f}",
            low_high,
            {True: "yes", False: "no", None: ""}[row["exact"]],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Fill the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="the JSON file")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page with the markers")
    given = parser.parse_args()
    result = json.loads(given.result.read_text(encoding="utf-8"))
    if result.get("schema") != SCHEMA:
        raise SystemExit(f"{given.result}: not a result of `temporal-attn bench decode --json`")
    page = given.page.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{given.page}: lacks the markers {BEGIN} and {END}")
    given.page.write_text(f"{before}{BEGIN}\n{section(result)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
