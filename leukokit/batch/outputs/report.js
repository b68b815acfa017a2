"use strict";
// Every heading of a sorted table becomes a button; without this script the tables stay as they are.
const collator = new Intl.Collator("en", { numeric: true });

function keyOf(row, column) {
  const cell = row.cells[column];
  const value = cell.dataset.value;
  if (cell.classList.contains("number")) return value === undefined ? null : Number(value);
  return cell.textContent.trim();
}

function compare(a, b) {
  return typeof a === "number" ? a - b : collator.compare(a, b);
}

for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.classList.contains("still")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = rows.map((row) => [keyOf(row, column), row]);
      // What has no number comes last, whichever way the others go.
      keyed.sort(([a], [b]) =>
        a === null || b === null ? (a === null) - (b === null) : down ? compare(b, a) : compare(a, b));
      body.append(...keyed.map(([, row]) => row));
    });
  });
}
