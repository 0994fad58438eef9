"use strict";

const $ = (id) => document.getElementById(id);
const PAGE = 200; // rows of one request
const MOST_HEIGHT = 6e6; // browsers have no taller elements; longer lists scroll in steps
const CAPTION = 42; // pixels below a picture
const MIN_CELL = 112;

let file = null; // what /file says
let total = 0; // rows that match
let pages = new Map(); // page number -> rows, or a promise
let current = 0; // index of the current row among those that match
let offset = 0; // pixels scrolled, of the whole list
let marks = new Set();
let shown = null; // the row in the dialog
let generation = 0; // of the filter: answers to an older one are dropped
let shownMarks = []; // the rows of the filter "marked"

// ---- Talking to the server

async function ask(path, options) {
  const response = await fetch(path, options);
  if (!response.ok) {
    let message = `The server answered ${response.status}.`;
    if (response.status === 403) message = "batchify view was started again: open the address that it has printed.";
    try { message = (await response.json()).error; } catch { /* not an answer of ours */ }
    throw new Error(message);
  }
  return response;
}

async function askJson(path) {
  try {
    return await (await ask(path)).json();
  } catch (error) {
    if (error instanceof TypeError) throw new Error("batchify view has ended: start it again.");
    throw error;
  }
}

let alertTimer = 0;
function tell(error) {
  $("alert").textContent = error.message || String(error);
  $("alert").hidden = false;
  clearTimeout(alertTimer);
  alertTimer = setTimeout(() => { $("alert").hidden = true; }, 8000);
}

const count = (number, word) => `${number.toLocaleString("en-US")} ${word}${number === 1 ? "" : "s"}`;
const address = (kind, number) => `${kind}/${number}?of=${file.identity.slice(0, 16)}`;

function element(tag, attributes = {}, ...content) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name in made && name !== "role") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...content);
  return made;
}

// From left to right, each part for itself: two Arabic parts would change places otherwise.
function pathOf(path, kind = "") {
  const parts = path.split("/").flatMap((part, i) => [...(i ? ["/"] : []), element("bdi", { dir: "ltr" }, part)]);
  return element("bdi", { class: kind, dir: "ltr" }, ...parts);
}

// Not broken within an option.
const words = (text) => text.split(" ").flatMap((word) => [element("span", {}, word), " "]).slice(0, -1);

// ---- Marks, kept by the browser for each file

const marksKey = () => `batchify-view:${file.identity}`;

// As runs of rows: rows skipped and rows marked, in base 36. All rows of a large file are one run.
function packed(numbers) {
  const parts = [];
  let end = 0;
  const sorted = [...numbers].sort((a, b) => a - b);
  for (let i = 0; i < sorted.length;) {
    const first = i;
    while (i < sorted.length && sorted[i] === sorted[first] + i - first) i++;
    parts.push(`${(sorted[first] - end).toString(36)}.${(i - first).toString(36)}`);
    end = sorted[first] + i - first;
  }
  return parts.join(" ");
}

function unpacked(text) {
  const found = new Set();
  let end = 0;
  for (const part of text.split(" ").filter(Boolean)) {
    const [skipped, run] = part.split(".").map((each) => parseInt(each, 36));
    if (!(skipped >= 0 && run > 0 && end + skipped + run <= file.rows)) return new Set();
    for (let number = end + skipped; number < end + skipped + run; number++) found.add(number);
    end += skipped + run;
  }
  return found;
}

function loadMarks() {
  try {
    marks = unpacked(localStorage.getItem(marksKey()) || "");
  } catch { marks = new Set(); }
}

function keepMarks() {
  try {
    if (marks.size) localStorage.setItem(marksKey(), packed(marks));
    else localStorage.removeItem(marksKey());
  } catch { tell(new Error("This browser cannot keep so many marks: download them before you close the page.")); }
  showMarks();
}

function showMarks() {
  $("export").textContent = `${marks.size.toLocaleString("en-US")} marked…`;
  $("export").disabled = !marks.size;
  const option = $("finding").querySelector("option[value=':marked']");
  if (option) option.textContent = `marked by you (${marks.size.toLocaleString("en-US")})`;
  draw();
  if (shown) showMark();
}

window.addEventListener("storage", (event) => { // of another tab, whose marks this one would overwrite
  if (file && (event.key === marksKey() || event.key === null)) { loadMarks(); showMarks(); }
});

function toggleMark(number) {
  if (!marks.delete(number)) marks.add(number);
  keepMarks();
}

// ---- The rows that match

function filterQuery() {
  const query = new URLSearchParams();
  for (const name of ["text", "split", "class", "finding"]) {
    const value = $(name).value;
    if (value && value !== ":marked") query.set(name, value);
  }
  return query;
}

async function applyFilter() {
  generation += 1;
  const mine = generation;
  pages = new Map();
  shownMarks = $("finding").value === ":marked" ? [...marks].sort((a, b) => a - b) : null;
  for (const name of ["text", "split", "class"]) $(name).disabled = shownMarks !== null;
  const finding = (file.findings || []).find((each) => each.code === $("finding").value);
  $("advice").hidden = !finding;
  if (finding) {
    $("advice").textContent = `${finding.severity}: ${finding.message}${finding.advice ? `; ${finding.advice}` : ""}.`;
  }
  $("count").textContent = "Searching…";
  try {
    total = shownMarks === null ? (await loadPage(0)).total : shownMarks.length;
  } catch (error) {
    if (mine !== generation) return;
    total = null;
    tell(error);
  }
  if (mine !== generation) return;
  if (total === null) $("count").textContent = "The rows could not be listed.";
  else $("count").textContent = total === file.rows ? count(total, "row") : `${total.toLocaleString("en-US")} of ${count(file.rows, "row")}`;
  $("mark-all").disabled = !total;
  $("empty").hidden = total !== 0;
  total ??= 0;
  current = 0;
  offset = 0;
  layOut();
}

function loadPage(page) {
  const there = pages.get(page);
  if (there) return Promise.resolve(there);
  const mine = generation;
  const of = pages;
  const query = shownMarks === null ? filterQuery() : new URLSearchParams();
  if (shownMarks === null) {
    query.set("start", page * PAGE);
    query.set("count", PAGE);
  } else {
    query.set("of", shownMarks.slice(page * PAGE, (page + 1) * PAGE).join(","));
  }
  const loading = askJson(`rows?${query}`).then((found) => {
    const loaded = { total: found.total, rows: found.rows };
    of.set(page, loaded);
    while (of.size > 60) of.delete(of.keys().next().value); // memory is bounded
    if (mine === generation) draw();
    return loaded;
  });
  loading.catch((error) => { of.delete(page); if (mine === generation) tell(error); });
  pages.set(page, loading);
  return loading;
}

function rowAt(index) {
  const page = pages.get(Math.floor(index / PAGE));
  return page && page.rows ? page.rows[index % PAGE] : null;
}

async function rowOf(index) {
  return (await loadPage(Math.floor(index / PAGE))).rows[index % PAGE];
}

// ---- The grid: only the cells in view exist

const grid = $("grid");
const cells = new Map(); // index -> element
let columns = 1, cellWidth = MIN_CELL, lineHeight = MIN_CELL + CAPTION, viewHeight = 0;
let fullHeight = 0, lastTop = 0, settleTimer = 0;

const scrollable = () => Math.max(0, fullHeight - viewHeight);
const spacerHeight = () => Math.min(fullHeight, Math.max(MOST_HEIGHT, viewHeight));
const isScaled = () => fullHeight > spacerHeight();
const scale = () => scrollable() / Math.max(1, spacerHeight() - viewHeight);

function layOut() {
  const width = grid.clientWidth - 16;
  const line = Math.floor(offset / lineHeight) * columns;
  columns = Math.max(2, Math.floor(width / MIN_CELL));
  if (width > 700) columns = Math.max(2, Math.floor(width / (MIN_CELL + 32)));
  cellWidth = Math.floor(width / columns);
  const anchored = Math.floor(line / columns);
  lineHeight = cellWidth + CAPTION;
  viewHeight = grid.clientHeight;
  fullHeight = Math.ceil(total / columns) * lineHeight + 8;
  $("spacer").style.height = `${total ? spacerHeight() : 0}px`;
  $("window").style.height = `${total ? Math.min(viewHeight, spacerHeight()) : 0}px`;
  for (const cell of cells.values()) cell.remove();
  cells.clear();
  scrollTo(offset ? anchored * lineHeight : 0);
}

function scrollTo(wanted) {
  offset = Math.min(Math.max(0, wanted), scrollable());
  grid.scrollTop = isScaled() ? offset / scale() : offset;
  lastTop = grid.scrollTop;
  draw();
}

grid.addEventListener("scroll", () => {
  const top = grid.scrollTop;
  const moved = top - lastTop;
  lastTop = top;
  if (!moved) return;
  if (!isScaled()) offset = top;
  else if (Math.abs(moved) < 2 * viewHeight) offset += moved; // by wheel or finger: pixel by pixel
  else offset = top * scale(); // by the bar
  offset = Math.min(Math.max(0, offset), scrollable());
  requestDraw();
  if (isScaled()) {
    clearTimeout(settleTimer);
    settleTimer = setTimeout(() => { grid.scrollTop = offset / scale(); lastTop = grid.scrollTop; }, 250);
  }
});

let drawing = 0;
function requestDraw() {
  if (!drawing) drawing = requestAnimationFrame(() => { drawing = 0; draw(); });
}

let pictureTimer = 0;
function draw() {
  if (!file || !viewHeight) return;
  const first = Math.floor(offset / lineHeight);
  const last = Math.ceil((offset + viewHeight) / lineHeight);
  const start = first * columns, stop = Math.min(total, last * columns);
  for (const [index, cell] of cells) {
    if (index < start || index >= stop) { cell.remove(); cells.delete(index); }
  }
  for (let page = Math.floor(start / PAGE); page * PAGE < stop; page++) {
    if (!pages.has(page)) loadPage(page);
  }
  for (let index = start; index < stop; index++) {
    let cell = cells.get(index);
    if (!cell) {
      cell = makeCell(index);
      cells.set(index, cell);
      $("window").append(cell);
    }
    const line = Math.floor(index / columns);
    cell.style.transform = `translate(${8 + (index % columns) * cellWidth}px, ${4 + line * lineHeight - offset}px)`;
    fillCell(cell, index);
  }
  if (cells.has(current)) grid.setAttribute("aria-activedescendant", `cell-${current}`);
  else grid.removeAttribute("aria-activedescendant");
  clearTimeout(pictureTimer); // pictures of rows that only pass by are not asked for
  pictureTimer = setTimeout(loadPictures, 60);
}

function makeCell(index) {
  const cell = element("div", { class: "cell", id: `cell-${index}`, role: "option" });
  cell.style.width = `${cellWidth}px`;
  cell.style.height = `${lineHeight}px`;
  cell.setAttribute("aria-posinset", index + 1);
  cell.setAttribute("aria-setsize", total);
  cell.append(
    element("div", { class: "tile" }),
    element("button", { class: "tick", type: "button", tabIndex: -1, textContent: "×", "aria-hidden": "true", title: "Mark (x)" }),
    element("span", { class: "name" }),
    element("bdi", { class: "path", dir: "ltr" }),
  );
  return cell;
}

function fillCell(cell, index) {
  const row = rowAt(index);
  cell.classList.toggle("current", index === current);
  if (!row) return;
  const marked = marks.has(row.number);
  cell.classList.toggle("marked", marked);
  cell.setAttribute("aria-selected", marked);
  cell.setAttribute("aria-label", `${row.label ? `${row.label}, ` : ""}${row.path}, ${row.split} row ${row.row}${marked ? ", marked" : ""}`);
  if (cell.dataset.number === String(row.number)) return;
  cell.dataset.number = row.number;
  cell.title = `${row.path}\n${row.split} row ${row.row.toLocaleString("en-US")}`;
  const name = cell.querySelector(".name");
  name.replaceChildren(element("span", { class: `split ${row.split}`, title: row.split }), element("b", {}, element("bdi", {}, row.label || row.split)));
  cell.querySelector(".path").replaceWith(pathOf(shortPath(row), "path"));
}

function shortPath(row) {
  const inside = row.label && row.path.startsWith(`${row.label}/`) ? row.path.slice(row.label.length + 1) : row.path;
  const most = Math.max(8, Math.floor(cellWidth / 7)); // the end of a name says more than its start
  return inside.length > most ? `…${inside.slice(1 - most)}` : inside;
}

function loadPictures() {
  for (const cell of cells.values()) {
    const tile = cell.querySelector(".tile");
    if (tile && cell.dataset.number) {
      tile.replaceWith(element("img", { src: address("thumbnail", cell.dataset.number), alt: "", decoding: "async", draggable: false }));
    }
  }
}

function moveTo(index) {
  if (!total) return;
  current = Math.min(Math.max(0, index), total - 1);
  const top = Math.floor(current / columns) * lineHeight;
  if (top < offset) scrollTo(top);
  else if (top + lineHeight + 8 > offset + viewHeight) scrollTo(top + lineHeight + 8 - viewHeight);
  else draw();
}

grid.addEventListener("click", (event) => {
  const cell = event.target.closest(".cell");
  if (!cell) return;
  moveTo(Number(cell.id.slice(5)));
  if (event.target.closest(".tick")) { if (cell.dataset.number) toggleMark(Number(cell.dataset.number)); }
  else open(current);
});

grid.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const screen = Math.max(1, Math.floor(viewHeight / lineHeight)) * columns;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -screen, PageDown: screen };
  if (event.key in steps) {
    const to = current + steps[event.key];
    if (to >= 0 && to < total) moveTo(to);
    else if (Math.abs(steps[event.key]) > columns) moveTo(to);
  } else if (event.key === "Home") moveTo(0);
  else if (event.key === "End") moveTo(total - 1);
  else if (event.key === "Enter") open(current);
  else if (event.key === "x" || event.key === " ") { const row = rowAt(current); if (row) toggleMark(row.number); }
  else return;
  event.preventDefault();
});

// ---- One row at full size

let actual = false, fitted = false;
let asked = 0; // which row was asked for last: an earlier one that comes late is dropped

async function open(index, row = null) {
  asked += 1;
  const turn = asked;
  if (!row) {
    if (index < 0 || index >= total) return;
    try { row = await rowOf(index); } catch (error) { tell(error); return; }
    if (!row || turn !== asked) return;
    moveTo(index);
  }
  shown = { ...row, index };
  if (!$("detail").open) {
    $("detail").showModal();
    $("stage").focus();
  }
  $("detail-title").replaceChildren(pathOf(row.path));
  $("detail-title").title = row.path;
  $("previous").disabled = index <= 0;
  $("next").disabled = index < 0 || index >= total - 1;
  showMark();
  showPicture();
  $("facts").replaceChildren(element("p", { class: "note" }, "Loading…"));
  loadFacts();
}

async function loadFacts() {
  const mine = shown;
  try {
    const found = await askJson(`row/${mine.number}`);
    if (shown === mine) showFacts(found);
  } catch (error) {
    if (shown === mine) $("facts").replaceChildren(element("p", { class: "bad" }, error.message));
  }
}

function showMark() {
  const marked = marks.has(shown.number);
  $("mark").textContent = marked ? "Marked" : "Mark";
  $("mark").setAttribute("aria-pressed", marked);
}

function showPicture() {
  const row = shown;
  const stage = $("stage");
  stage.classList.toggle("actual", actual);
  $("zoom").setAttribute("aria-pressed", actual);
  $("fitted").hidden = !file.isEncoded;
  $("fitted").setAttribute("aria-pressed", fitted);
  const figure = (kind, title, more = "") => {
    const caption = element("figcaption", {}, `${title}: loading…`);
    const picture = element("img", { alt: `${title}: ${row.label ? `${row.label}, ` : ""}${row.path}` });
    const made = element("figure", {}, picture, caption);
    picture.addEventListener("load", () => {
      caption.textContent = `${title}, ${picture.naturalHeight} × ${picture.naturalWidth} pixels`;
      picture.classList.toggle("small", picture.naturalWidth * 2 < picture.clientWidth || picture.naturalHeight * 2 < picture.clientHeight);
    });
    picture.addEventListener("error", async () => {
      let message = "The image cannot be shown.";
      try { await ask(picture.getAttribute("src")); } catch (error) { message = error.message; }
      if (shown === row) made.replaceWith(element("p", { class: "bad" }, message));
    });
    picture.src = address(kind, row.number) + more;
    return made;
  };
  const asStored = file.isEncoded ? (fitted ? "As it is read" : "As it is stored") : "As it is stored";
  stage.replaceChildren(figure("picture", asStored, fitted && file.isEncoded ? "&fit" : ""));
  if (file.classMode === "mask") stage.append(figure("mask", "Mask"));
}

function showFacts(found) {
  const list = element("dl");
  const add = (name, ...content) => list.append(element("div", {}, element("dt", {}, name), element("dd", {}, ...content)));
  const bdi = (text, kind = "") => element("bdi", { class: kind }, text);
  add("Row", element("span", { class: `split ${found.split}` }, found.split), ` row ${found.row.toLocaleString("en-US")}`);
  if (found.label) add("Class", bdi(found.label));
  add("Path", pathOf(found.path));
  add("SHA-256", element("span", { class: "mono" }, found.sha256));
  if (found.sourceSize.some(Boolean)) add("Image file", `${found.sourceSize[0]} × ${found.sourceSize[1]} pixels (height × width)`);
  add(file.isEncoded ? "Read as" : "Stored as", `${file.shape.join(" × ")} ${file.dtype}`);
  add("Flags", found.flags.length ? found.flags.map((each) => each.replaceAll("_", " ")).join(", ") : "none");
  if (found.psnr !== undefined) add("PSNR", `${found.psnr} dB`);
  const parts = [list];
  const section = (title, ...content) => parts.push(element("h3", {}, title), ...content);
  const table = (title, pairs) => {
    const values = element("dl");
    for (const [name, value] of pairs) values.append(element("div", {}, element("dt", {}, bdi(name)), element("dd", {}, bdi(value))));
    section(title, values);
  };
  if (found.findings === null) {
    section("Findings", element("p", { class: "note" }, "Still being looked for…"));
  } else if (found.findings.length) {
    const items = found.findings.map((each) =>
      element("li", { class: { error: "bad", warning: "warn" }[each.severity] || "note" }, `${each.code}${each.note ? ": " : ""}`, bdi(each.note)));
    section("Findings", element("ul", { class: "found" }, ...items));
  }
  if (found.numbers) table("Labels", found.numbers);
  if (found.columns.length) table("Columns", found.columns);
  const rows = (each) => element("ul", { class: "rows" }, ...each.map(([row, index, text]) => {
    const button = element("button", { type: "button", title: row.path },
      element("img", { src: address("thumbnail", row.number), alt: "" }), element("span", {}, text, pathOf(row.path)));
    button.addEventListener("click", () => open(index, index < 0 ? row : null));
    return element("li", {}, button);
  }));
  if (found.copies.length) {
    section("The same bytes", rows(found.copies.map((row) => [row, -1, `${row.split} ${row.row}: `])));
    if (found.moreCopies) parts.push(element("p", { class: "note" }, `… and ${found.moreCopies.toLocaleString("en-US")} more`));
  }
  if (found.alike.length) {
    section("Look alike", rows(found.alike.map((row) => [row, -1, `${row.split} ${row.row}, ${count(row.bits, "bit")} differ: `])));
  }
  const index = shown.index;
  const around = index < 0 ? [] : [index - 1, index + 1].filter((each) => each >= 0 && each < total);
  const here = element("div");
  if (around.length) { section("Before and after", here); }
  $("facts").replaceChildren(...parts);
  $("facts").scrollTop = 0;
  const mine = shown;
  Promise.all(around.map(async (each) => [await rowOf(each), each, each < index ? "before: " : "after: "])).then((each) => {
    if (shown === mine) here.replaceChildren(rows(each));
  }, tell);
}

function step(by) {
  if (shown.index >= 0 && shown.index + by >= 0 && shown.index + by < total) open(shown.index + by);
}

const toggleActual = () => { actual = !actual; showPicture(); };
const toggleFitted = () => { if (file.isEncoded) { fitted = !fitted; showPicture(); } };

$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("mark").addEventListener("click", () => toggleMark(shown.number));
$("zoom").addEventListener("click", toggleActual);
$("fitted").addEventListener("click", toggleFitted);
$("close").addEventListener("click", () => $("detail").close());
$("detail").addEventListener("close", () => {
  asked += 1;
  shown = null;
  $("stage").replaceChildren();
  if (document.activeElement === document.body) grid.focus(); // this event comes late
  draw();
});
$("detail").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const scrolls = actual && event.target === $("stage"); // arrows scroll a picture that is larger
  const keys = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => step(-columns), ArrowDown: () => step(columns),
    x: () => toggleMark(shown.number), z: toggleActual, f: toggleFitted,
  };
  if (event.target === $("facts") && event.key.startsWith("Arrow") && ["ArrowUp", "ArrowDown"].includes(event.key)) return;
  if (!(event.key in keys) || (scrolls && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  keys[event.key]();
});

// ---- Lists to exclude

const listName = (kind) => {
  const base = file.name.replace(/\.(h5|hdf5)$/i, "").replace(/[^\w.-]+/g, "_") || "out";
  return kind === "rows" ? `${base}-rows.jsonl` : `${base}-paths.txt`;
};

async function download(kind) {
  const button = $(`download-${kind}`), text = button.textContent;
  if (button.getAttribute("aria-busy")) return;
  button.setAttribute("aria-busy", true); // not disabled, which would lose the focus
  button.textContent = "Preparing…";
  $("export-error").hidden = true;
  try {
    const body = JSON.stringify({ kind, numbers: [...marks].sort((a, b) => a - b) });
    const response = await ask("exclude", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    const link = element("a", { href: URL.createObjectURL(await response.blob()), download: listName(kind) });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) {
    $("export-error").textContent = error.message;
    $("export-error").hidden = false;
  }
  button.removeAttribute("aria-busy");
  button.textContent = text;
}

$("export").addEventListener("click", () => {
  $("export-error").hidden = true;
  $("export-text").textContent = `${count(marks.size, "row")} marked in ${file.name}.`;
  $("rows-command").replaceChildren(...words(`${file.command} --exclude-rows ${listName("rows")}`));
  $("paths-command").replaceChildren(...words(`${file.command} --exclude @${listName("paths")}`));
  $("paths-part").hidden = !file.isOfFiles;
  $("export-dialog").showModal();
});
$("download-rows").addEventListener("click", () => download("rows"));
$("download-paths").addEventListener("click", () => download("paths"));
$("export-close").addEventListener("click", () => $("export-dialog").close());
$("show-marked").addEventListener("click", () => { $("export-dialog").close(); $("finding").value = ":marked"; applyFilter(); grid.focus(); });
$("unmark-all").addEventListener("click", () => { marks.clear(); keepMarks(); $("export-dialog").close(); if ($("finding").value === ":marked") applyFilter(); });
$("mark-all").addEventListener("click", async () => {
  try {
    const numbers = shownMarks === null ? await askJson(`numbers?${filterQuery()}`) : shownMarks;
    for (const number of numbers) marks.add(number);
    keepMarks();
  } catch (error) { tell(error); }
});

// ---- Filters, keys of the page, start

let searchTimer = 0;
$("filters").addEventListener("submit", (event) => { event.preventDefault(); applyFilter(); grid.focus(); });
$("text").addEventListener("input", () => { clearTimeout(searchTimer); searchTimer = setTimeout(applyFilter, 200); });
for (const name of ["split", "class", "finding"]) $(name).addEventListener("change", applyFilter);
$("clear").addEventListener("click", () => {
  for (const name of ["text", "split", "class", "finding"]) $(name).value = "";
  applyFilter();
});
$("help").addEventListener("click", () => $("help-dialog").showModal());
$("help-close").addEventListener("click", () => $("help-dialog").close());
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape" && typing && !document.querySelector("dialog[open]")) { grid.focus(); return; }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "?") {
    if (!document.querySelector("dialog[open]:not(#detail)")) $("help-dialog").showModal();
  } else if (event.key === "/" && !document.querySelector("dialog[open]")) {
    $("text").focus();
    $("text").select();
  } else return;
  event.preventDefault();
});
new ResizeObserver(() => { if (file) layOut(); }).observe(grid);

function options(select, all, entries) {
  select.replaceChildren(element("option", { value: "" }, all), ...entries.map(([value, text]) => element("option", { value }, text)));
}

async function start() {
  file = await askJson("file");
  document.title = `${file.name} · batchify view`;
  $("name").textContent = file.name;
  const kinds = file.classes.length ? count(file.classes.length + file.moreClasses, "class").replace("classs", "classes") : { none: "no labels", mask: "masks" }[file.classMode] || `${file.classMode} labels`;
  $("about").textContent = `${count(file.rows, "row")}, ${kinds}, ${file.shape.join("×")} ${file.dtype}`;
  options($("split"), "all splits", Object.entries(file.splits).map(([name, rows]) => [name, `${name} (${rows.toLocaleString("en-US")})`]));
  options($("class"), file.moreClasses ? `all (the largest ${file.classes.length} are listed)` : "all classes",
    file.classes.map((each) => [each.index, `${each.name} (${each.rows.toLocaleString("en-US")})`]));
  $("class-field").hidden = !file.classes.length;
  const note = element("option", { disabled: true }, "looking for findings…");
  options($("finding"), "all rows", [[":marked", "marked by you (0)"]]);
  $("finding").append(note);
  loadMarks();
  showMarks();
  await applyFilter();
  grid.focus();
  file.findings = await askJson("findings");
  if (file.findings.length) note.remove();
  else note.textContent = "no findings";
  for (const each of file.findings) {
    $("finding").append(element("option", { value: each.code }, `${each.code} (${each.rows.toLocaleString("en-US")})`));
  }
  if (shown) loadFacts(); // with its findings
}

start().catch(tell);
