// This file connects the controls of the page with what they control: tools, verdict, display, marks, saving.

const LAYER_NAMES = { probability: "Probability before the mask was refined", uncertainty: "Uncertainty" };
const SIZE_STEPS = 100; // positions of the brush's slider
const LARGEST_BRUSH = 40; // times the smallest voxel size, radius

class Panel {
  constructor(app) {
    this.app = app;
    const on = (id, event, act) => byId(id).addEventListener(event, act);
    const check = (id, name) => on(id, "change", (event) => app.setView({ [name]: event.target.checked }));
    check("shown", "mask");
    check("outline", "outline");
    check("region", "region");
    check("cross", "cross");
    check("anatomy", "scan3d");
    on("opacity", "input", (event) => app.setView({ opacity: event.target.value / 100 }));
    on("slab", "input", (event) => app.setView({ slab: Number(event.target.value) }));
    on("layer", "change", (event) => app.setView({ layer: event.target.value }));
    for (const id of ["window", "level"])
      on(id, "change", () => {
        const [width, level] = [Number(byId("window").value), Number(byId("level").value)];
        if (width > 0) app.setWindow(level - width / 2, level + width / 2);
      });
    on("class", "change", (event) => app.setLabel(Number(event.target.value)));
    on("size", "input", (event) => app.setBrush({ radius: this.radiusAt(event.target.value) }));
    on("ball", "change", (event) => app.setBrush({ ball: event.target.checked }));
    on("undo", "click", () => app.undo());
    on("redo", "click", () => app.redo());
    on("previous", "click", () => app.goTo(app.caseNumber - 1));
    on("next", "click", () => app.goTo(app.caseNumber + 1));
    on("comment", "input", (event) => app.setComment(event.target.value));
    on("reviewer", "input", (event) => app.setReviewer(event.target.value));
    on("advance", "change", (event) => (app.advance = event.target.checked));
    on("save-decisions", "click", () => saveDecisions(app));
    on("save-mask", "click", () => saveMask(app, app.caseNumber));
    on("save-all", "click", () => saveAll(app));
    on("restore", "click", () => app.restoreMask());
    for (const button of document.querySelectorAll("[data-verdict]"))
      button.addEventListener("click", () => app.decide(button.dataset.verdict));
    on("play", "click", () => app.play());
    this.makeTools();
    this.makeViews();
    this.makeClasses();
  }

  makeTools() {
    for (const tool of TOOLS) {
      const button = element("button", { type: "button", textContent: tool.name, title: `${tool.say} (${tool.key.toUpperCase()})` });
      button.dataset.tool = tool.id;
      button.addEventListener("click", () => this.app.setTool(tool.id));
      byId("tools").append(button);
    }
  }

  // One view at a time: buttons in each view, and tabs where the window is narrow.
  makeViews() {
    for (const pane of document.querySelectorAll(".pane")) {
      const { view } = pane.dataset;
      const name = view === "3d" ? "3-D" : capital(view);
      const button = pane.querySelector(".enlarge");
      button.title = "This view alone, or all (L)";
      button.addEventListener("click", () => this.app.enlarge(this.app.large === view ? null : view));
      const tab = element("button", { type: "button", textContent: name });
      tab.dataset.view = view;
      tab.addEventListener("click", () => this.app.enlarge(view));
      byId("plane-tabs").append(tab);
    }
  }

  makeClasses() {
    const classes = this.app.data.classes.filter(({ value }) => value > 0);
    for (const { value, name } of classes) byId("class").append(element("option", { value, textContent: name }));
    this.makeLegend(classes.filter(({ background }) => !background));
    byId("class").append(element("option", { value: 0, textContent: "background (only to name places)" }));
  }

  makeLegend(classes) {
    for (const { value, name } of classes) {
      const swatch = element("canvas", { width: 1, height: 1 }); // the policy of the page forbids styles in elements
      Object.assign(swatch.getContext("2d"), { fillStyle: classColour(value) }).fillRect(0, 0, 1, 1);
      const line = element("li");
      line.append(swatch, name);
      byId("legend").append(line);
    }
  }

  radiusAt(position) {
    const least = Math.min(...this.app.grid.spacing) / 2;
    return least * (2 * LARGEST_BRUSH) ** (position / SIZE_STEPS);
  }

  // Name the case at once; the rest follows when it is loaded.
  announce() {
    byId("case-name").textContent = this.app.info.label;
    for (const id of ["reasons", "facts"]) byId(id).replaceChildren();
    this.refreshVerdict(this.app.review);
  }

  // Take up a new case.
  show() {
    const { app } = this;
    const { info, layers } = app;
    byId("reasons").replaceChildren(...info.reasons.map((textContent) => element("li", { textContent })));
    byId("facts").replaceChildren(
      ...(info.facts ?? []).flatMap(([name, value]) => [
        element("dt", { textContent: name }),
        element("dd", { textContent: value }),
      ]),
    );
    byId("origin").textContent =
      `${app.data.software}. Method: ${info.method ?? "unknown"}, classes named by ${info.named_by ?? "unknown"}. Run ${info.run_hash ?? "unknown"}.`;
    byId("presets").replaceChildren(
      ...(info.presets ?? []).map((preset) => {
        const button = element("button", { type: "button", textContent: preset.name });
        button.addEventListener("click", () => app.setWindow(preset.low, preset.high));
        return button;
      }),
    );
    const names = Object.keys(LAYER_NAMES).filter((name) => layers[name]);
    byId("layer").replaceChildren(
      element("option", { value: "", textContent: "none" }),
      ...names.map((name) => element("option", { value: name, textContent: LAYER_NAMES[name] })),
    );
    byId("layer-choice").hidden = !names.length;
    byId("region-choice").hidden = !layers.region;
    byId("slab-choice").hidden = app.kind === "frames";
    byId("ball-choice").hidden = app.kind === "frames";
    byId("plane-tabs").hidden = app.kind === "frames";
    byId("play").hidden = app.kind !== "frames" || app.image?.shape[2] === 1;
    for (const button of document.querySelectorAll(".enlarge")) button.hidden = app.kind === "frames";
    byId("comment").value = app.review.comment;
  }

  refresh() {
    const { app } = this;
    const { view, review } = app;
    for (const button of byId("tools").children) button.setAttribute("aria-pressed", String(button.dataset.tool === app.tool));
    for (const button of byId("plane-tabs").children)
      button.setAttribute("aria-pressed", String(button.dataset.view === (app.large ?? "axial")));
    const paints = app.tool === "brush" || app.tool === "eraser";
    byId("class-choice").hidden = !["brush", "fill", "name"].includes(app.tool);
    byId("tool-hint").textContent = TOOLS.find(({ id }) => id === app.tool).say;
    byId("size-choice").hidden = !paints;
    byId("ball-choice").hidden = !paints || app.kind === "frames";
    byId("class").value = app.label;
    byId("ball").checked = app.brush.ball;
    byId("play").setAttribute("aria-pressed", String(Boolean(app.playing)));
    byId("play").textContent = app.playing ? "Stop" : "Play";
    byId("undo").disabled = !app.history.done.length;
    byId("redo").disabled = !app.history.undone.length;
    for (const [id, name] of [["shown", "mask"], ["outline", "outline"], ["region", "region"], ["cross", "cross"], ["anatomy", "scan3d"]])
      byId(id).checked = view[name];
    byId("opacity").value = Math.round(view.opacity * 100);
    byId("opacity-out").textContent = `${Math.round(view.opacity * 100)} %`;
    byId("slab").value = view.slab;
    byId("slab-out").textContent = view.slab ? `${view.slab} mm` : "single slice";
    byId("layer").value = view.layer;
    byId("scale").hidden = !view.layer;
    for (const [id, value] of [["window", view.high - view.low], ["level", (view.high + view.low) / 2]])
      if (document.activeElement !== byId(id)) byId(id).value = short(value);
    if (app.grid) this.refreshBrush();
    this.refreshVerdict(review);
    this.refreshMarks(review);
  }

  refreshBrush() {
    const { app } = this;
    const least = Math.min(...app.grid.spacing) / 2;
    byId("size").value = (SIZE_STEPS * Math.log(app.brush.radius / least)) / Math.log(2 * LARGEST_BRUSH);
    byId("size-out").textContent = lengthInWords(app, 2 * app.brush.radius);
    byId("size").setAttribute("aria-valuetext", byId("size-out").textContent);
  }

  refreshVerdict(review) {
    const { app } = this;
    for (const button of document.querySelectorAll("[data-verdict]")) {
      button.setAttribute("aria-pressed", String(button.dataset.verdict === review.verdict));
      button.disabled = !app.isShown;
    }
    const state = byId("case-state");
    state.className = `state-${review.verdict ?? "none"}`;
    const changed = app.changedVoxels ? `, mask changed in ${volumeInWords(app, app.changedVoxels)}` : "";
    state.textContent = `Case ${app.caseNumber + 1} of ${app.data.cases.length}: ${stateWords(review.verdict)}${changed}`;
    byId("previous").disabled = app.caseNumber === 0;
    byId("next").disabled = app.caseNumber === app.data.cases.length - 1;
    byId("save-mask").disabled = byId("restore").disabled = !app.changedVoxels;
    const done = app.reviews.filter(({ verdict }) => verdict).length;
    byId("save-decisions").disabled = byId("save-all").disabled = !done;
    byId("saved").textContent = app.store.kept
      ? "Kept in this browser as you work. Download to hand it on."
      : "NOT kept when this tab closes: download before.";
  }

  refreshMarks(review) {
    const { app } = this;
    const marks = [
      ...review.clicks.map((click, n) => ({ words: `${n + 1} ${click.class}: ${placeInWords(app, click.xyz_mm)}`, at: click.xyz_mm, list: "clicks", n })),
      ...review.measures.map((measure, n) => ({ words: `Distance ${lengthInWords(app, distanceMm(measure.a, measure.b))}`, at: measure.a, list: "measures", n })),
    ];
    byId("no-marks").hidden = marks.length > 0;
    const key = JSON.stringify(marks);
    if (key === this.marksKey) return; // made anew only when changed: a focused button must not vanish
    this.marksKey = key;
    byId("marks-list").replaceChildren(
      ...marks.map(({ words, at, list, n }) => {
        const [go, away] = [element("button", { type: "button", textContent: words }), element("button", { type: "button", textContent: "✕" })];
        go.title = "Go there";
        away.setAttribute("aria-label", `Take away: ${words}`);
        go.addEventListener("click", () => app.moveTo(toVoxel(app.grid, at)));
        away.addEventListener("click", () => app.removeMark(list, n));
        const item = element("li");
        item.append(go, away);
        return item;
      }),
    );
  }
}
