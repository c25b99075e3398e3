// The confusion matrix: arrows go from cell to cell, a click or Enter names the clips of one.
(() => {
  "use strict";
  const cells = [...document.querySelectorAll(".cell")];
  if (!cells.length) return;
  const { cells: clips, stills } = JSON.parse(document.querySelector(".results").textContent);
  const panel = document.querySelector(".clips");
  const place = (cell) => [Number(cell.dataset.row), Number(cell.dataset.column)];

  const make = (tag, text, kind) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  const picture = (row) => {
    const strip = document.querySelector(`[data-film="${row}"] .reel`);
    if (strip) return strip.cloneNode(true);
    if (!(row in stills)) return null;
    const image = make("img", undefined, "still-picture");
    image.src = stills[row];
    image.alt = "";
    return image;
  };

  const open = (cell) => {
    cells.forEach((other) => other.setAttribute("aria-pressed", String(other === cell)));
    const known = clips[cell.dataset.cell];
    const list = make("ul");
    known.forEach(([id, p, row]) => {
      const item = make("li");
      const shown = row === null ? null : picture(row);
      if (shown) item.append(shown);
      item.append(make("bdi", id), make("span", ` p = ${p.toFixed(2)}`, "quiet"));
      list.append(item);
    });
    panel.replaceChildren(make("h3", cell.getAttribute("aria-label") ?? cell.textContent), list);
  };

  const reach = (cell) => {
    cells.forEach((other) => (other.tabIndex = other === cell ? 0 : -1));
  };

  // The nearest cell that holds videos, in the direction of the arrow.
  const next = (from, down, right) => {
    const [row, column] = place(from);
    let best = null;
    let least = Infinity;
    cells.forEach((cell) => {
      const [dy, dx] = [place(cell)[0] - row, place(cell)[1] - column];
      const ahead = down * dy + right * dx;
      const aside = Math.abs(down * dx) + Math.abs(right * dy);
      if (ahead > 0 && ahead + 3 * aside < least) [best, least] = [cell, ahead + 3 * aside];
    });
    return best;
  };

  // A list of confusions has one column, whose entries stand beside each other too.
  const sideways = document.querySelector(".confusion") ? [0, 1] : [1, 0];
  const back = sideways.map((step) => -step);
  const arrows = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: sideways, ArrowLeft: back };
  cells.forEach((cell) => {
    cell.setAttribute("aria-pressed", "false");
    cell.addEventListener("click", () => {
      reach(cell);
      open(cell);
    });
    cell.addEventListener("keydown", (event) => {
      const found = arrows[event.key] && next(cell, ...arrows[event.key]);
      if (!found) return;
      event.preventDefault();
      reach(found);
      found.focus();
    });
  });
  reach(cells[0]);
})();
