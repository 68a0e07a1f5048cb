// This file shows the state of the work beside the picture.

const STATE_SIGNS = { open: "·", done: "✓", none: "✕" };

function minutes(seconds) {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
}

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function sheetInWords({ ticked, state }) {
  const said = { open: "Tick all cells with a vessel, then Enter.", done: "This slice is finished.", none: "No vessel here." };
  return `${plural(ticked.size, "cell")} ticked. ${said[state]}`;
}

function fillPanel(app) {
  byId("cases").replaceChildren(
    ...app.data.cases.map((info, n) => {
      const button = element("button", { type: "button" });
      button.append(element("span", { className: "name", textContent: info.case }), element("span", { className: "signs" }));
      button.addEventListener("click", () => app.goTo(n));
      const item = element("li");
      item.append(button);
      return item;
    }),
  );
}

function refreshPanel(app) {
  const { info, sheet, work } = app;
  const cases = app.data.cases.length;
  byId("place").textContent = `${info.case}: slice ${app.sliceNumber + 1} of ${info.indices.length}`;
  byId("place").title = `Slice ${info.indices[app.sliceNumber]} of ${info.count} in the file, counted from 0`;
  byId("slice-back").disabled = app.caseNumber === 0 && app.sliceNumber === 0;
  byId("slice-on").disabled = app.caseNumber === cases - 1 && app.sliceNumber === work.sheets.length - 1;
  byId("none").setAttribute("aria-pressed", String(sheet.state === "none"));
  const history = app.histories[app.caseNumber];
  byId("undo").disabled = !history.done.length;
  byId("redo").disabled = !history.undone.length;
  const sheets = app.works.flatMap((one) => one.sheets);
  const judged = sheets.filter(({ state }) => state !== "open").length;
  byId("progress").textContent = `${judged} of ${plural(sheets.length, "slice")} judged`;
  Object.assign(byId("progress-bar"), { max: sheets.length, value: judged });
  [...byId("cases").children].forEach((item, n) => {
    const button = item.firstElementChild;
    if (n === app.caseNumber) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    const signs = app.works[n].sheets.map(({ state, ticked }) => (state === "open" && ticked.size ? "…" : STATE_SIGNS[state]));
    button.lastElementChild.textContent = signs.join(" ");
    button.lastElementChild.title = "✓ finished, ✕ no vessel, … ticked but not finished, · not judged";
  });
  refreshWindows(app);
  const all = app.works.reduce((sum, { seconds }) => sum + seconds, 0);
  const ticked = sheets.reduce((sum, one) => sum + one.ticked.size, 0);
  byId("time").textContent = `${plural(ticked, "cell")} ticked in ${minutes(all)} of work; this case ${minutes(work.seconds)}.`;
  byId("saved").textContent = app.store.kept
    ? "Kept in this browser as you work. Download to hand it on."
    : "NOT kept when this tab closes: download before.";
}

function refreshWindows(app) {
  const names = app.info.presets.map(({ name }) => name);
  if (byId("presets").dataset.names !== names.join("|")) {
    byId("presets").dataset.names = names.join("|");
    byId("presets").replaceChildren(
      ...names.map((textContent, n) => {
        const button = element("button", { type: "button", textContent });
        button.addEventListener("click", () => app.setPreset(n));
        return button;
      }),
    );
  }
  [...byId("presets").children].forEach((button, n) => button.setAttribute("aria-pressed", String(n === app.preset)));
  byId("level").value = app.level;
  byId("lines").checked = app.lines;
}
