// This file holds the keys: one table from which both the keyboard and the help sheet are made, and a short legend.
//
// Keys act everywhere but in text fields. Arrows and space act while the picture has the focus, or nothing has.

const KEYS = [
  ["Cells", "ArrowLeft", "← → ↑ ↓", "Move to another cell", (app) => app.moveCursor(-1, 0)],
  ["Cells", "ArrowRight", "", "", (app) => app.moveCursor(1, 0)],
  ["Cells", "ArrowUp", "", "", (app) => app.moveCursor(0, -1)],
  ["Cells", "ArrowDown", "", "", (app) => app.moveCursor(0, 1)],
  ["Cells", " ", "Space", "Tick a cell, or take its tick away", (app) => app.toggle(app.cursor)],
  ["Cells", "u", "U or Ctrl+Z", "Undo the last change of this case", (app) => app.undo()],
  ["Cells", "U", "Shift+U or Ctrl+Y", "Redo", (app) => app.redo()],
  ["Slices", "Enter", "Enter", "All vessels here are ticked; go on", (app) => app.finish()],
  ["Slices", "x", "X", "No vessel in this slice, or take that back", (app) => app.sayNone()],
  ["Slices", "PageDown", "PgDn PgUp", "Next, previous slice", (app) => app.step(1)],
  ["Slices", "PageUp", "", "", (app) => app.step(-1)],
  ["Slices", ".", ". ,", "Next, previous slice", (app) => app.step(1)],
  ["Slices", ",", "", "", (app) => app.step(-1)],
  ["Slices", "n", "N P", "Next, previous case", (app) => app.goTo(app.caseNumber + 1)],
  ["Slices", "p", "", "", (app) => app.goTo(app.caseNumber - 1)],
  ["Display", "w", "W", "Next window", (app) => app.nextPreset()],
  ["Display", "+", "+ -", "Brighter, darker", (app) => app.setLevel(app.level + 10)],
  ["Display", "-", "", "", (app) => app.setLevel(app.level - 10)],
  ["Display", "g", "G", "Lines of the grid on or off", (app) => app.setLines(!app.lines)],
  ["Page", "s", "S", "Download the annotation", (app) => app.download()],
  ["Page", "?", "?", "All keys (Esc closes the sheet)", () => byId("help").showModal()],
];
const OF_THE_PICTURE = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", " ", "Enter", "PageUp", "PageDown"];
const LEGEND = [
  ["Click, drag", "Tick, or untick"],
  ["Space", "The same; arrows move"],
  ["Enter", "All ticked, next slice"],
  ["X", "No vessel, next slice"],
  ["U", "Undo"],
  ["PgDn PgUp", "Next, previous slice"],
  ["W", "Next window"],
];
const MOUSE = [
  ["Click", "Tick a cell, or take its tick away"],
  ["Drag", "The same for all cells on the way"],
  ["Wheel", "Next, previous slice"],
];

function listenToKeys(app) {
  addEventListener("keydown", (event) => {
    if (byId("help").open || event.altKey || event.metaKey) return;
    const field = event.target.closest?.("input");
    if (field?.type === "text") {
      if (["Escape", "Enter"].includes(event.key)) byId("pane").focus();
      return;
    }
    if (event.ctrlKey) {
      const step = { z: event.shiftKey ? "redo" : "undo", y: "redo" }[event.key.toLowerCase()];
      if (step) act(event, () => app[step]());
      return;
    }
    const elsewhere = document.activeElement !== byId("pane") && document.activeElement !== document.body;
    if (elsewhere && OF_THE_PICTURE.includes(event.key)) return; // buttons and sliders have their own use for them
    const found = KEYS.find(([, key]) => key === event.key) ?? KEYS.find(([, key]) => key === event.key.toLowerCase());
    if (found) act(event, () => found[4](app));
  });
}

function act(event, what) {
  event.preventDefault();
  what();
}

function fillHelp(pause) {
  byId("pause").textContent = pause;
  const line = (table, ...cells) => {
    const row = element("tr", cells.length === 1 ? { className: "chapter" } : {});
    cells.forEach((textContent, n) => row.append(element(n ? "td" : "th", { textContent, colSpan: cells.length === 1 ? 2 : 1 })));
    byId(table).append(row);
  };
  for (const chapter of ["Cells", "Slices", "Display", "Page"]) {
    line("keys", chapter);
    for (const [where, , keys, say] of KEYS) if (where === chapter && keys) line("keys", keys, say);
  }
  line("keys", "Mouse and touch");
  MOUSE.forEach(([keys, say]) => line("keys", keys, say));
  LEGEND.forEach(([keys, say]) => line("legend", keys, say));
}
