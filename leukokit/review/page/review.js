"use strict";
// The review page. All state is on the server: a decision counts as made only when the server has stored it.

const [FIELD, ID, LEFT, TOP, RIGHT, BOTTOM, LABEL, PROBABILITY, BEST] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
const TILE = { width: 136, height: 156 };
const POLL_MS = 4000;
const find = (id) => document.getElementById(id);

let batch = null;
let verdicts = new Map(); // cell number -> {label, reviewer}
let shown = []; // cell numbers that pass the filters, least certain first
let filter = null; // a label
let selected = new Set();
let current = -1; // place in shown
let anchor = 0;
const started = Date.now();
let decided = 0;

const labelOf = (cell) => verdicts.get(cell)?.label ?? batch.cells[cell][LABEL];

async function ask(path, body) {
  const options = body && {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Leukokit": "1" },
    body: JSON.stringify(body),
  };
  let answer;
  try {
    const response = await fetch(path, options);
    answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
  } catch (error) {
    complain(`Not stored: ${error.message}`);
    throw error;
  }
  find("error").hidden = true;
  return answer;
}

function complain(text) {
  find("error").textContent = text;
  find("error").hidden = false;
}

function take(state) {
  for (const [cell, label, reviewer] of state.verdicts) {
    if (label === null) verdicts.delete(cell);
    else verdicts.set(cell, { label, reviewer });
  }
  showDifferential(state.differential);
  const minutes = Math.max((Date.now() - started) / 60000, 1 / 60);
  const pace = decided ? ` · ${Math.round(decided / minutes)} per minute` : "";
  find("progress").textContent = `${state.reviewed} of ${batch.cells.length} cells reviewed${pace}`;
}

// Labels and filters

function allLabels() {
  const named = batch.labels.map((label, place) => ({ ...label, key: place < 9 ? String(place + 1) : "" }));
  return [
    { name: batch.unclassified, colour: "#1A1A1A", key: "", machine: true },
    { name: batch.unknown, colour: "#DD0044", key: "u" },
    ...named,
    { name: batch.notLeukocyte, colour: "#888888", key: "x" },
  ];
}

function showLabels() {
  const counts = new Map();
  batch.cells.forEach((_, cell) => counts.set(labelOf(cell), (counts.get(labelOf(cell)) ?? 0) + 1));
  const known = allLabels();
  for (const name of counts.keys()) {
    if (!known.some((label) => label.name === name)) known.push({ name, colour: "#0072B2", key: "" });
  }
  const rows = [{ name: null, colour: "transparent", key: "" }, ...known].map((label) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", String(filter === label.name));
    const parts = ["key", "swatch", "text", "count"].map((kind) => {
      const part = document.createElement("span");
      part.className = kind;
      return part;
    });
    parts[0].textContent = label.key;
    parts[1].style.backgroundColor = label.colour;
    parts[2].textContent = label.name ?? "all";
    parts[3].textContent = label.name === null ? batch.cells.length : (counts.get(label.name) ?? 0);
    button.append(...parts);
    button.addEventListener("click", () => { filter = label.name; refresh(true); });
    if (label.name !== null && !label.machine) acceptDrops(button, label.name);
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  find("labels").replaceChildren(...rows);
}

function acceptDrops(button, label) {
  button.addEventListener("dragover", (event) => { event.preventDefault(); button.classList.add("over"); });
  button.addEventListener("dragleave", () => button.classList.remove("over"));
  button.addEventListener("drop", (event) => { event.preventDefault(); decide(label); });
}

function passes(cell) {
  const row = batch.cells[cell];
  const which = find("which").value;
  return (filter === null || labelOf(cell) === filter)
    && (find("slide").value === "" || batch.fields[row[FIELD]].slide === find("slide").value)
    && row[PROBABILITY] * 100 <= Number(find("most").value)
    && (which === "" || (which === "yes") === verdicts.has(cell));
}

function refresh(fromTop) {
  const kept = fromTop ? -1 : shown[current];
  shown = batch.cells.map((_, cell) => cell).filter(passes);
  const certainty = (cell) => (labelOf(cell) === batch.unknown ? -1 : batch.cells[cell][PROBABILITY]);
  shown.sort((a, b) => certainty(a) - certainty(b) || a - b);
  const place = shown.indexOf(kept);
  current = place >= 0 ? place : Math.min(Math.max(current, 0), shown.length - 1);
  if (fromTop) { current = shown.length ? 0 : -1; find("grid").scrollTop = 0; }
  selected = new Set([...selected].filter((cell) => shown.includes(cell)));
  if (!selected.size && current >= 0) selected.add(shown[current]);
  showLabels();
  drawGrid();
  showCell();
}

// The grid: only the rows in sight exist

const columns = () => Math.max(1, Math.floor((find("grid").clientWidth - 8) / TILE.width));

function drawGrid() {
  const grid = find("grid");
  const across = columns();
  find("space").style.height = `${Math.ceil(shown.length / across) * TILE.height}px`;
  const first = Math.max(0, Math.floor(grid.scrollTop / TILE.height) - 1) * across;
  const last = Math.min(shown.length, (Math.ceil((grid.scrollTop + grid.clientHeight) / TILE.height) + 1) * across);
  const here = new Map([...find("space").children].map((tile) => [Number(tile.dataset.cell), tile]));
  const wanted = [];
  for (let place = first; place < last; place += 1) {
    const tile = here.get(shown[place]) ?? makeTile(shown[place]);
    dress(tile, place, across);
    wanted.push(tile);
  }
  const keep = new Set(wanted);
  for (const tile of here.values()) if (!keep.has(tile)) tile.remove();
  for (const tile of wanted) if (!tile.parentNode) find("space").append(tile);
}

function makeTile(cell) {
  const tile = document.createElement("div");
  tile.className = "cell";
  tile.id = `cell-${cell}`;
  tile.dataset.cell = cell;
  tile.draggable = true;
  tile.setAttribute("role", "option");
  const image = document.createElement("img");
  image.src = `api/crop/${cell}`;
  image.alt = "";
  image.draggable = false;
  tile.append(image, document.createElement("span"));
  tile.addEventListener("click", (event) => pick(shown.indexOf(cell), event));
  tile.addEventListener("dragstart", () => { if (!selected.has(cell)) pick(shown.indexOf(cell), {}); });
  return tile;
}

function dress(tile, place, across) {
  const cell = shown[place];
  const row = batch.cells[cell];
  tile.style.left = `${(place % across) * TILE.width}px`;
  tile.style.top = `${Math.floor(place / across) * TILE.height}px`;
  tile.classList.toggle("current", place === current);
  tile.classList.toggle("reviewed", verdicts.has(cell));
  tile.setAttribute("aria-selected", String(selected.has(cell)));
  tile.setAttribute("aria-posinset", place + 1);
  tile.setAttribute("aria-setsize", shown.length);
  const percent = row[BEST] ? ` ${Math.round(row[PROBABILITY] * 100)}%` : "";
  const guess = labelOf(cell) === batch.unclassified && row[BEST] ? ` (${row[BEST]}?)` : "";
  const text = verdicts.has(cell) ? labelOf(cell) : `${labelOf(cell)}${guess}${percent}`;
  tile.lastChild.textContent = text;
  tile.setAttribute("aria-label", `${verdicts.has(cell) ? "reviewed: " : ""}${text}`);
}

function pick(place, event) {
  if (place < 0 || place >= shown.length) return;
  if (event.shiftKey) {
    const [from, to] = [Math.min(anchor, place), Math.max(anchor, place)];
    selected = new Set(shown.slice(from, to + 1));
  } else if (event.ctrlKey || event.metaKey) {
    const cell = shown[place];
    if (selected.has(cell)) selected.delete(cell);
    else selected.add(cell);
    anchor = place;
  } else {
    selected = new Set([shown[place]]);
    anchor = place;
  }
  current = place;
  reveal();
  drawGrid();
  showCell();
}

function reveal() {
  const grid = find("grid");
  const top = Math.floor(current / columns()) * TILE.height;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + TILE.height > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + TILE.height - grid.clientHeight;
  grid.setAttribute("aria-activedescendant", current >= 0 ? `cell-${shown[current]}` : "");
}

// Decisions

function reviewer() {
  const input = find("reviewer");
  if (input.reportValidity()) return input.value;
  input.focus();
  return null;
}

async function decide(label) {
  const by = reviewer();
  const cells = [...selected];
  if (by === null || !cells.length) return;
  const next = shown.slice(current).find((cell) => !selected.has(cell));
  take(await ask("api/decide", { cells, label, reviewer: by }));
  decided += cells.length;
  selected = new Set();
  refresh(false);
  if (next !== undefined) pick(shown.indexOf(next), {});
}

async function undo() {
  const by = reviewer();
  if (by === null) return;
  const state = await ask("api/undo", { reviewer: by });
  take(state);
  selected = new Set(state.verdicts.map(([cell]) => cell));
  refresh(false);
}

async function finish() {
  find("finish").disabled = true;
  try {
    const { files } = await ask("api/finish", {});
    find("progress").textContent = `Written: ${files.join(", ")}`;
  } finally {
    find("finish").disabled = false;
  }
}

async function confirmShown() {
  const cells = [...selected];
  const labels = new Set(cells.map(labelOf));
  if (labels.size !== 1) return complain("Select cells of one label to confirm it.");
  const [label] = labels;
  if (label === batch.unclassified) return complain("Unclassified is no label: give one with 1 to 9, u or x.");
  return decide(label);
}

// The field with the cell marked; wheel zooms, dragging pans

const picture = new Image();
const centre = { x: 0, y: 0, zoom: 1 }; // of the view, in the field's pixels
let pictured = -1;

function showCell() {
  const cell = shown[current];
  if (cell === undefined) { find("about").textContent = "No cell passes the filters."; return; }
  const row = batch.cells[cell];
  const field = batch.fields[row[FIELD]];
  const verdict = verdicts.get(cell);
  const percent = row[BEST] ? `, ${row[BEST]} ${(row[PROBABILITY] * 100).toFixed(1)}%` : "";
  find("about").textContent = `${field.name}, cell ${row[ID]}. Classifier: ${row[LABEL]}${percent}.`
    + (verdict ? ` Reviewed: ${verdict.label}, by ${verdict.reviewer}.` : "");
  const size = Math.max(row[RIGHT] - row[LEFT], row[BOTTOM] - row[TOP]);
  const { clientWidth, clientHeight } = find("view");
  const whole = Math.min(clientWidth / field.width, clientHeight / field.height);
  centre.zoom = Math.max(Math.min(clientWidth, clientHeight) / (size * 6), whole);
  centre.x = (row[LEFT] + row[RIGHT]) / 2;
  centre.y = (row[TOP] + row[BOTTOM]) / 2;
  if (pictured !== row[FIELD]) { pictured = row[FIELD]; picture.src = `api/field/${pictured}`; }
  drawField();
}

function drawField() {
  const canvas = find("field");
  const ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const cell = shown[current];
  if (cell === undefined || !picture.complete || !picture.naturalWidth) return;
  const row = batch.cells[cell];
  const field = batch.fields[row[FIELD]];
  const zoom = centre.zoom * ratio;
  const pen = canvas.getContext("2d");
  pen.translate(canvas.width / 2 - centre.x * zoom, canvas.height / 2 - centre.y * zoom);
  pen.scale(zoom, zoom);
  pen.drawImage(picture, 0, 0, field.width, field.height);
  pen.lineWidth = 2 * ratio / zoom;
  pen.strokeStyle = "#0a63c9";
  pen.strokeRect(row[LEFT], row[TOP], row[RIGHT] - row[LEFT], row[BOTTOM] - row[TOP]);
}

function wireField() {
  const canvas = find("field");
  picture.addEventListener("load", drawField);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    centre.zoom = Math.min(Math.max(centre.zoom * Math.exp(-event.deltaY / 500), 0.02), 20);
    drawField();
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    centre.x -= event.movementX / centre.zoom;
    centre.y -= event.movementY / centre.zoom;
    drawField();
  });
}

function showDifferential(count) {
  const rows = count.shares.map((share) => {
    const row = document.createElement("tr");
    const percent = share.percent === null ? "" : share.percent.toFixed(1);
    for (const text of [share.label, share.count, percent, `${share.low.toFixed(1)} to ${share.high.toFixed(1)}`]) {
      const cell = document.createElement("td");
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  });
  find("differential").tBodies[0].replaceChildren(...rows);
  find("apart").textContent = `n = ${count.n}. Apart: ${count.unclassified} unclassified, ${count.unknown} unknown, `
    + `${count.erythroblasts} erythroblasts.`;
}

// Keys

function onKey(event) {
  if (event.target.matches("input:not([type=range]), select")) return;
  const key = event.key;
  const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[key];
  const label = allLabels().find((one) => one.key && one.key === key.toLowerCase());
  if ((event.ctrlKey || event.metaKey) && key.toLowerCase() === "z") undo();
  else if ((event.ctrlKey || event.metaKey) && key.toLowerCase() === "a") { selected = new Set(shown); drawGrid(); }
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (move !== undefined) pick(Math.min(Math.max(current + move, 0), shown.length - 1), { shiftKey: event.shiftKey });
  else if (key === " ") confirmShown();
  else if (label) decide(label.name);
  else return;
  event.preventDefault();
}

async function start() {
  batch = await ask("api/batch");
  find("name").textContent = batch.name;
  document.title = `Review of ${batch.name}`;
  for (const slide of [...new Set(batch.fields.map((field) => field.slide))].sort()) {
    find("slide").add(new Option(slide, slide));
  }
  take(batch);
  for (const id of ["slide", "which", "most"]) {
    find(id).addEventListener("input", () => {
      find("most-text").textContent = `${find("most").value}%`;
      refresh(true);
    });
  }
  find("undo").addEventListener("click", undo);
  find("finish").addEventListener("click", finish);
  find("grid").addEventListener("scroll", drawGrid);
  window.addEventListener("resize", () => { drawGrid(); drawField(); });
  document.addEventListener("keydown", onKey);
  wireField();
  refresh(true);
  // What another browser decided meanwhile.
  setInterval(async () => {
    const state = await ask("api/state");
    const before = JSON.stringify([...verdicts]);
    verdicts = new Map();
    take(state);
    if (JSON.stringify([...verdicts]) !== before) refresh(false);
  }, POLL_MS);
}

start();
