// This file holds the keys: one table from which both the keyboard and the help sheet are made.
//
// Keys act everywhere but in text fields. Those of the slices act on the plane that was used last. Enter and the arrows
// act only while a view has the focus, because buttons and sliders use them too.

const anywhereKeys = () => [
  ["Cases", "n", "N", "Next case", (app) => app.goTo(app.caseNumber + 1)],
  ["Cases", "p", "P", "Previous case", (app) => app.goTo(app.caseNumber - 1)],
  ["Cases", "a", "A", "Accept", (app) => app.decide("accept")],
  ["Cases", "c", "C", "Corrected: the mask as it is now", (app) => app.decide("correct")],
  ["Cases", "r", "R", "Reject", (app) => app.decide("reject")],
  ["Cases", "i", "I", "Write a comment (Esc: back to the images)", () => byId("comment").focus()],
  ["Cases", "u", "U or Ctrl+Z", "Undo the last change of this case", (app) => app.undo()],
  ["Cases", "U", "Shift+U or Ctrl+Y", "Redo", (app) => app.redo()],
  ["Cases", "s", "S", "Save the decisions of all cases to a file", (app) => saveDecisions(app)],
  ["Views", "1", "1 2 3 4", "Go to the axial, coronal, sagittal, 3-D view", (app) => app.focusView("axial")],
  ["Views", "2", "", "", (app) => app.focusView("coronal")],
  ["Views", "3", "", "", (app) => app.focusView("sagittal")],
  ["Views", "4", "", "", (app) => app.focusView("3d")],
  ["Views", "l", "L", "This view alone, or all", (app) => app.enlarge(app.large ? null : app.activeView)],
  ["Views", "+", "+ -", "Zoom", (app) => app.active.zoomBy(1.25)],
  ["Views", "-", "", "", (app) => app.active.zoomBy(0.8)],
  ["Views", "PageUp", "PgUp PgDn", "Ten slices on, back", (app) => app.stepSlice(app.active, 10)],
  ["Views", "PageDown", "", "", (app) => app.stepSlice(app.active, -10)],
  ["Display", "m", "M", "Mask on or off", (app) => app.setView({ mask: !app.view.mask })],
  ["Display", "o", "O", "Outline only, or filled", (app) => app.setView({ outline: !app.view.outline })],
  ["Display", ".", ", .", "Mask fainter, stronger", (app) => app.setView({ opacity: Math.min(app.view.opacity + 0.1, 1) })],
  ["Display", ",", "", "", (app) => app.setView({ opacity: Math.max(app.view.opacity - 0.1, 0) })],
  ["Display", "w", "W", "Next window preset", (app) => app.nextPreset()],
  ["Display", "v", "V", "Slab: single slice, 10, 20, 40 mm", (app) => app.nextSlab()],
  ["Display", "y", "Y", "Next colour layer: none, probability, uncertainty", (app) => app.nextLayer()],
  ["Display", "h", "H", "Crosshair on or off", (app) => app.setView({ cross: !app.view.cross })],
  ...TOOLS.map((tool) => ["Tools", tool.key, tool.key.toUpperCase(), `${tool.name}. ${tool.say}`, (app) => app.setTool(tool.id)]),
  ["Tools", "]", "[ ]", "Brush smaller, larger", (app) => app.setBrush({ radius: app.brush.radius * 1.25 })],
  ["Tools", "[", "", "", (app) => app.setBrush({ radius: app.brush.radius / 1.25 })],
  ["Tools", "t", "T", "Brush in one slice, or a ball in 3-D", (app) => app.setBrush({ ball: !app.brush.ball })],
  ["Tools", "q", "Q", "Next class to draw or name", (app) => app.nextLabel()],
  ["Page", "?", "?", "This sheet (Esc closes it)", () => showHelp()],
];

const IN_A_PLANE = [
  ["Views", "ArrowUp", "↑ ↓", "Next slice towards head, front or right; back", (app, plane) => app.stepSlice(plane, 1)],
  ["Views", "ArrowDown", "", "", (app, plane) => app.stepSlice(plane, -1)],
  ["Views", " ", "Space", "Play or stop a cine", (app) => app.play()],
  ["Views", "Home", "Home End", "First, last slice", (app, plane) => app.stepSlice(plane, -Infinity)],
  ["Views", "End", "", "", (app, plane) => app.stepSlice(plane, Infinity)],
  ["Views", "Shift+ArrowUp", "Shift + arrows", "Move the crosshair within the slice", (app, plane) => app.stepCursor(plane, 0, -1)],
  ["Views", "Shift+ArrowDown", "", "", (app, plane) => app.stepCursor(plane, 0, 1)],
  ["Views", "Shift+ArrowLeft", "", "", (app, plane) => app.stepCursor(plane, -1, 0)],
  ["Views", "Shift+ArrowRight", "", "", (app, plane) => app.stepCursor(plane, 1, 0)],
  ["Tools", "Enter", "Enter", "Use the tool at the crosshair", (app, plane) => act(app, plane, app.cursor)],
];

const IN_3D = {
  ArrowLeft: [-15, 0],
  ArrowRight: [15, 0],
  ArrowUp: [0, 15],
  ArrowDown: [0, -15],
};

const MOUSE = [
  ["Left button", "Use the tool"],
  ["Right button, drag", "Window: sideways its width, up and down its level"],
  ["Middle button, drag", "Move the picture"],
  ["Wheel", "Slices; with Ctrl: zoom"],
  ["Double click", "This view alone, or all"],
  ["One finger; two fingers", "Use the tool; zoom"],
];

function listenToKeys(app) {
  app.keys = anywhereKeys();
  document.addEventListener("keydown", (event) => {
    if (byId("help").open || event.altKey || event.metaKey) return;
    const field = event.target.closest?.("input, textarea, select");
    const typing = field && !["range", "checkbox"].includes(field.type);
    if (event.key === "Escape") {
      if (typing) app.active.root.focus();
      return app.cancel();
    }
    if (typing || !app.ready3d) return;
    const act = wanted(app, event, field);
    if (!act) return;
    event.preventDefault();
    act();
  });
}

// What a key does, or null.
function wanted(app, event, field) {
  if (event.ctrlKey) {
    const step = { z: event.shiftKey ? "redo" : "undo", y: "redo" }[event.key.toLowerCase()];
    return step ? () => app[step]() : null;
  }
  const pane = document.activeElement?.closest?.(".pane");
  const focused = document.activeElement === pane ? pane : null;
  if (focused?.dataset.view === "3d" && IN_3D[event.key]) return () => app.render.turnBy(...IN_3D[event.key]);
  const plane = focused && app.planes.find(({ root }) => root === focused);
  const name = event.shiftKey && event.key.startsWith("Arrow") ? `Shift+${event.key}` : event.key;
  const inPlane = plane && app.grid && IN_A_PLANE.find(([, key]) => key === name);
  if (inPlane) return () => inPlane[4](app, plane);
  if (field && ["PageUp", "PageDown"].includes(event.key)) return null; // a slider's own keys
  const anywhere = app.keys.find(([, key]) => key === event.key) ?? app.keys.find(([, key]) => key === event.key.toLowerCase());
  if (!anywhere) return null;
  if (["Cases", "Page"].includes(anywhere[0])) return () => anywhere[4](app);
  return () => app.whenShown(() => app.grid && anywhere[4](app));
}

// From its top: the button that gets the focus stands below all keys.
function showHelp() {
  byId("help").showModal();
  byId("help").scrollTop = 0;
}

function fillHelp() {
  const rows = [...anywhereKeys(), ...IN_A_PLANE].filter(([, , shown]) => shown);
  const table = byId("keys");
  const row = (keys, say) => {
    const line = element("tr");
    line.append(element("th", { scope: "row", textContent: keys }), element("td", { textContent: say }));
    table.append(line);
  };
  for (const chapter of ["Cases", "Views", "Display", "Tools", "Page"]) {
    table.append(headLine(chapter));
    rows.filter(([where]) => where === chapter).forEach(([, , keys, say]) => row(keys, say));
  }
  table.append(headLine("Mouse and touch"));
  MOUSE.forEach(([keys, say]) => row(keys, say));
}

function headLine(textContent) {
  const line = element("tr", { className: "chapter" });
  line.append(element("th", { scope: "colgroup", colSpan: 2, textContent }));
  return line;
}
