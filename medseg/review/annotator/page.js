// This file starts the page, and gives `window.medseg` to tests and to the curious. It comes last.

function notice(words) {
  const line = element("p");
  const close = element("button", { type: "button", textContent: "OK" });
  close.addEventListener("click", () => line.remove());
  line.append(element("span", { textContent: words }), close);
  byId("notices").append(line);
}

let isWarned = false;
function warnOfStorage() {
  if (isWarned) return;
  isWarned = true;
  notice("This browser does not keep your work (no storage, or it is full): download the annotation before you close this tab.");
}

function listenToMouse(app) {
  const canvas = byId("canvas");
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !app.stack) return;
    event.preventDefault();
    byId("pane").focus({ focusVisible: false, preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    app.beginDrag(event.clientX, event.clientY);
  });
  canvas.addEventListener("pointermove", (event) => app.dragTo(event.clientX, event.clientY));
  for (const event of ["pointerup", "pointercancel"]) canvas.addEventListener(event, () => app.endDrag());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    app.step(Math.sign(event.deltaY));
  }, { passive: false });
}

function listenToPanel(app) {
  const on = (id, act, event = "click") => byId(id).addEventListener(event, act);
  on("slice-back", () => app.step(-1));
  on("slice-on", () => app.step(1));
  on("done", () => app.finish());
  on("none", () => app.sayNone());
  on("undo", () => app.undo());
  on("redo", () => app.redo());
  on("save", () => app.download());
  on("level", (event) => app.setLevel(Number(event.target.value)), "input");
  on("lines", (event) => app.setLines(event.target.checked), "change");
  on("annotator", (event) => app.setAnnotator(event.target.value), "input");
  on("open-help", () => byId("help").showModal());
}

async function startPage() {
  const data = JSON.parse(byId("medseg-data").textContent);
  byId("title").textContent = document.title = data.title;
  byId("origin").textContent = `${data.software}, made ${data.created}. Cells of ${data.cell} x ${data.cell} voxels.`;
  fillHelp(data.pause);
  if (!window.DecompressionStream) {
    notice("This browser is too old to unpack the slices: take a current Chrome, Edge, Firefox or Safari.");
    return null;
  }
  const store = await openStore();
  const app = new App(data, store);
  if (!store.kept) warnOfStorage();
  fillPanel(app);
  listenToKeys(app);
  listenToMouse(app);
  listenToPanel(app);
  new ActiveTime(data.pause, (seconds) => app.spend(seconds));
  addEventListener("visibilitychange", () => app.save());
  new ResizeObserver(() => app.draw()).observe(byId("pane"));
  addEventListener("beforeunload", (event) => {
    if (!app.store.kept && !app.isDownloaded) event.preventDefault();
  });
  const restored = await app.start();
  if (restored) notice(`The work on ${plural(restored, "case")} was restored.`);
  byId("pane").focus({ focusVisible: false, preventScroll: true });
  return app;
}

// Cases by their number, 0 for the first; places are [row, column] on the stored grid.
function apiOf(starting) {
  let app = null;
  return {
    ready: starting.then((started) => (app = started)).then(() => undefined),
    get state() {
      const { caseNumber, sliceNumber, cursor, preset, level, lines } = app;
      return { case: app.info.case, caseNumber, sliceNumber, cursor, preset, level, lines, sheet: app.sheet.state, seconds: app.work.seconds, kept: app.store.kept };
    },
    goTo: (number, slice) => app.goTo(number, slice),
    boxOf: (place) => app.picture.boxOf(app.geometry, place),
    annotations: () => annotationsOf(app.data, app.works, app.annotator),
  };
}

window.medseg = apiOf(startPage());
