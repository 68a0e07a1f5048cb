// This file starts the page, and gives `window.medseg` to tests and to the curious. It comes last.

// A blob of the page, unpacked: it lies in the page, or beside it where the page is served.
async function unpacked(data, id) {
  if (!data.served) {
    const text = byId(id)?.textContent;
    if (text === undefined) throw new Error("its data are missing in this page");
    return gunzip(fromBase64(text.trim()));
  }
  const answer = await fetch(`blob/${encodeURIComponent(id)}`);
  if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
  return gunzip(new Uint8Array(await answer.arrayBuffer()));
}

function notice(words) {
  const line = element("p");
  const close = element("button", { type: "button", textContent: "OK" });
  close.addEventListener("click", () => line.remove());
  line.append(element("span", { textContent: words }), close);
  byId("notices").append(line);
}

function warnOfStorage() {
  notice("This browser does not keep your work (no storage, or it is full): download decisions and masks before you close this tab.");
}

async function startPage() {
  const data = JSON.parse(byId("medseg-data").textContent);
  byId("title").textContent = data.title;
  document.title = data.title;
  fillHelp();
  byId("open-help").addEventListener("click", showHelp);
  if (!data.cases.length) {
    notice("There are no cases to review.");
    return null;
  }
  const store = await openStore();
  const app = new App(data, store);
  if (!store.kept) warnOfStorage();
  listenToKeys(app);
  addEventListener("visibilitychange", () => {
    app.spend();
    app.save();
  });
  addEventListener("resize", () => app.enlarge(app.large));
  addEventListener("beforeunload", (event) => {
    if (!app.store.kept && !app.downloaded) event.preventDefault();
  });
  app.enlarge(null);
  await app.start();
  return app;
}

// Cases are named as in the data, or by their place in the queue, 0 for the first.
function apiOf(starting) {
  let app = null;
  const place = (which) => (typeof which === "number" ? which : app.data.cases.findIndex((info) => info.case === which));
  const api = {
    ready: starting.then((started) => (app = started)).then(() => undefined),
    get state() {
      const { caseNumber, cursor, view, tool, label, brush, changedVoxels } = app;
      return { n: caseNumber, case: app.info.case, cursor, view, tool, label, brush, changedVoxels, shown: Boolean(app.grid), kept: app.store.kept };
    },
    goTo: (which) => app.goTo(place(which)),
    goToMm: (mm) => app.moveTo(toVoxel(app.grid, mm)),
    setWindow: (low, high) => app.setWindow(low, high),
    setView: (part) => app.setView(part),
    setTool: (tool) => app.setTool(tool),
    decision: (which) => decisionOf(app.data.cases[place(which)], app.reviews[place(which)], app.reviewer),
    decisions: () => decisionsOf(app.data, app.reviews, app.reviewer),
    correctedMask: (which) => correctedMask(app, place(which)),
    drawAt: (mm, value, radius) => app.paint(ballAround(app.grid, toVoxel(app.grid, mm), radius, null), value, "brush stroke"),
    undo: () => app.undo(),
    redo: () => app.redo(),
    accept: () => app.decide("accept"),
    correct: () => app.decide("correct"),
    reject: () => app.decide("reject"),
  };
  return api;
}

window.medseg = apiOf(startPage());
