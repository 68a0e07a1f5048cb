// This file holds the state of the page, and all that changes it.
//
// Each change goes through a method of the *app* and ends in `refresh`: views and controls are drawn from the state once,
// with the next picture of the screen. Each change of a review is saved at once.

const SAVE_MS = 300; // after the last typed letter
const FRAME_MS = 80;
const SLABS_MM = [0, 10, 20, 40];
const LAYERS = ["probability", "uncertainty", "region"];

class App {
  constructor(data, store) {
    Object.assign(this, { data, store, caseNumber: 0, info: data.cases[0], kind: "volume", unit: "mm", ready3d: false });
    this.clear();
    this.reviews = data.cases.map(newReview);
    this.view = {
      low: 0, high: 1, opacity: 0.45, slab: 0, layer: "", mask: true, outline: false, region: false, cross: true, scan3d: false,
    };
    Object.assign(this, { tool: "cursor", label: this.firstClass() });
    Object.assign(this, { brush: { radius: 1, ball: false }, reviewer: "", advance: false, large: null, downloaded: true });
    this.hidden = new Set(data.classes.filter(({ background }) => background).map(({ value }) => value)).add(0);
    this.histories = data.cases.map(() => new History());
    this.watch = new Stopwatch();
    this.planes = ["axial", "coronal", "sagittal"].map((name) => new Plane(this, name));
    this.planes.forEach((plane) => listen(this, plane));
    this.active = this.planes[0];
    this.activeView = "axial";
    this.render = new Render3d(this);
    this.render.root.addEventListener("focus", () => (this.activeView = "3d"));
    this.queue = new Queue(this);
    this.panel = new Panel(this);
  }

  get review() {
    return this.reviews[this.caseNumber];
  }

  get history() {
    return this.histories[this.caseNumber];
  }

  get changedVoxels() {
    return this.review.edits?.index.length ?? 0;
  }

  // Nothing is shown.
  clear() {
    clearInterval(this.playing);
    Object.assign(this, { playing: null, waiting: [] });
    Object.assign(this, { grid: null, image: null, mask: null, original: null, layers: {}, cursor: [0, 0, 0] });
    Object.assign(this, { pending: null, measureEnd: null, maskVersion: (this.maskVersion ?? 0) + 1, range: 1 });
  }

  // --- cases ---

  async start() {
    await Promise.all(
      this.data.cases.map(async (info, n) => {
        const record = await this.store.load(this.keyOf(info));
        if (record) this.reviews[n] = { ...newReview(), ...record };
      }),
    );
    this.reviewer = (await this.store.load(`${this.data.created}|reviewer`)) ?? "";
    byId("reviewer").value = this.reviewer;
    const found = this.reviews.filter(({ verdict, edits, clicks, comment }) => verdict || edits || clicks.length || comment).length;
    if (found) notice(`Your earlier work on ${found} of ${this.data.cases.length} cases was found in this browser and restored.`);
    await this.render.start();
    this.ready3d = true;
    const first = this.reviews.findIndex(({ verdict }) => !verdict);
    await this.goTo(Math.max(first, 0));
  }

  // Show the n-th case of the queue; 0 is the first.
  async goTo(n) {
    if (n < 0 || n >= this.data.cases.length) return;
    this.spend();
    this.save();
    this.clear();
    Object.assign(this, { caseNumber: n, info: this.data.cases[n], said: null, isShown: false });
    Object.assign(this, { kind: this.info.kind ?? "volume", unit: this.info.unit ?? "mm" });
    byId("pictures").hidden = true;
    byId("loading").hidden = false;
    byId("status").textContent = `${this.info.label} is being loaded.`;
    this.panel.announce();
    this.enlarge(this.kind === "frames" ? "axial" : this.kindOfLarge === "frames" ? null : this.large);
    this.kindOfLarge = this.kind;
    this.refresh();
    try {
      const loaded = await this.load(this.info);
      if (this.info !== this.data.cases[n] || this.caseNumber !== n) return; // another case was asked for meanwhile
      Object.assign(this, loaded);
      this.mask = withEdits(this.original, this.review.edits);
      this.present();
    } catch (error) {
      if (this.caseNumber === n) this.showPictures(error);
    }
    if (this.caseNumber !== n) return;
    byId("loading").hidden = true;
    this.refresh();
    requestAnimationFrame(() => requestAnimationFrame(() => this.caseIsSeen(n))); // the second one comes after the picture
  }

  // From now on the case can be judged; what was typed meanwhile is done.
  caseIsSeen(n) {
    if (this.caseNumber !== n || this.isShown) return;
    this.isShown = true;
    this.refresh();
    for (const act of this.waiting.splice(0)) act();
  }

  // Do something as soon as the case is on the screen.
  whenShown(act) {
    if (this.isShown) act();
    else this.waiting.push(act);
  }

  async load(info) {
    const [image, mask, ...layers] = await Promise.all(
      [info.image, info.mask, ...LAYERS.map((name) => info[name])].map(async (id) => (id ? readNifti(await unpacked(this.data, id)) : null)),
    );
    if (image.shape.join() !== mask.shape.join()) throw new Error("scan and mask have different grids");
    return {
      image,
      original: mask.voxels,
      grid: makeGrid(mask.shape, mask.affine),
      layers: Object.fromEntries(LAYERS.map((name, n) => [name, layers[n]]).filter(([, layer]) => layer)),
    };
  }

  // Start in the middle of the mask, where there is something to judge.
  present() {
    const { grid, info } = this;
    this.planes.forEach((plane) => plane.show());
    this.cursor = startingPlace(grid, this.mask, this.hidden);
    this.setWindow(...info.window);
    this.range = Math.max(info.window[1] - info.window[0], 1e-9);
    this.view.slab = this.kind === "frames" ? 0 : this.view.slab;
    if (!this.layers[this.view.layer]) this.view.layer = "";
    this.brush.radius = Math.max(this.brush.chosen ?? 0, 1.5 * Math.min(...grid.spacing));
    this.panel.show();
  }

  // What remains where the volumes cannot be unpacked: pictures of the case, and a verdict.
  showPictures(error) {
    this.panel.show();
    const place = byId("pictures");
    place.hidden = false;
    const why = typeof DecompressionStream === "undefined" ? "this browser is too old to unpack it" : error.message;
    place.replaceChildren(
      element("p", { textContent: `The scan cannot be shown (${why}). Below are pictures of it; you can still comment, accept and reject.` }),
    );
    for (const [name, src] of Object.entries(this.info.slices ?? {})) {
      if (!src?.startsWith("data:image/png")) continue;
      const figure = element("figure");
      figure.append(element("figcaption", { textContent: capital(name) }), element("img", { src, alt: `${name} slice with the mask` }));
      place.append(figure);
    }
  }

  // --- what is seen ---

  refresh() {
    this.drawing ??= requestAnimationFrame(() => {
      this.drawing = null;
      this.queue.refresh();
      this.panel.refresh();
      if (!this.grid) return;
      const shown = this.kind === "frames" ? this.planes.slice(0, 1) : this.planes;
      shown.forEach((plane) => plane.draw());
      this.render.refresh();
      const status = `${placeInWords(this, toMm(this.grid, this.cursor))}, value ${short(valueAt(this, this.cursor))}${classAt(this, this.cursor)}`;
      if (!this.said) byId("status").textContent = status;
    });
  }

  // A message that stays until the next action or some seconds.
  say(words) {
    byId("status").textContent = words;
    clearTimeout(this.said);
    this.said = setTimeout(() => {
      this.said = null;
      this.refresh();
    }, 6000);
    this.refresh();
  }

  setView(part) {
    Object.assign(this.view, part);
    this.refresh();
  }

  setWindow(low, high) {
    if (high > low) this.setView({ low, high });
  }

  nextPreset() {
    const { presets } = this.info;
    if (!presets?.length) return;
    this.presetNumber = ((this.presetNumber ?? -1) + 1) % presets.length;
    const preset = presets[this.presetNumber];
    this.setWindow(preset.low, preset.high);
    this.say(`Window: ${preset.name}`);
  }

  nextSlab() {
    if (this.kind === "frames") return;
    this.setView({ slab: SLABS_MM.find((mm) => mm > this.view.slab) ?? 0 });
  }

  nextLayer() {
    const names = ["", ...Object.keys(LAYER_NAMES).filter((name) => this.layers[name])];
    this.setView({ layer: names[(names.indexOf(this.view.layer) + 1) % names.length] });
  }

  // Show one view alone, or all (null). In a narrow window one is always alone.
  enlarge(view) {
    this.large = this.kind === "frames" ? "axial" : view;
    byId("planes").classList.toggle("single", Boolean(this.large) || isNarrow());
    for (const button of document.querySelectorAll(".enlarge")) button.textContent = this.large ? "All views" : "Enlarge";
    for (const pane of document.querySelectorAll(".pane"))
      pane.classList.toggle("large", pane.dataset.view === (this.large ?? (isNarrow() ? "axial" : null)));
    this.refresh();
  }

  focusView(view) {
    if (this.kind === "frames") view = "axial";
    if (this.large || isNarrow()) this.enlarge(view);
    byId(`pane-${view}`).focus();
  }

  activate(plane) {
    this.active = plane;
    this.activeView = plane.name;
    for (const each of this.planes) each.root.classList.toggle("active", each === plane);
  }

  // Show the frames of a cine one after the other, or stop.
  play() {
    if (this.playing) {
      clearInterval(this.playing);
      this.playing = null;
    } else if (this.kind === "frames" && this.grid) {
      const plane = this.planes[0];
      this.playing = setInterval(() => {
        if (this.grid) this.moveSlice(plane, (plane.slice + plane.cut.upwards + Number(plane.slider.max)) % Number(plane.slider.max));
      }, FRAME_MS);
    }
    this.refresh();
  }

  moveTo(ijk) {
    if (!this.grid) return;
    this.cursor = clampTo(this.grid, ijk);
    this.refresh();
  }

  moveSlice(plane, slice) {
    if (!this.grid) return;
    const ijk = [...this.cursor];
    ijk[plane.cut.normal] = Math.min(Math.max(slice, 0), this.grid.shape[plane.cut.normal] - 1);
    this.moveTo(ijk);
  }

  stepSlice(plane, steps) {
    if (this.kind === "frames") plane = this.planes[0];
    this.moveSlice(plane, plane.slice + steps * plane.cut.upwards);
  }

  // Steps in voxels to the right of the screen and downwards.
  stepCursor(plane, right, down) {
    const ijk = [...this.cursor];
    ijk[plane.cut.u] += plane.cut.flipU ? -right : right;
    ijk[plane.cut.v] += plane.cut.flipV ? -down : down;
    this.moveTo(ijk);
  }

  // --- tools ---

  setTool(tool) {
    Object.assign(this, { tool, pending: null, measureEnd: null, said: null });
    if (this.label === 0 && tool !== "name") this.setLabel(this.firstClass());
    this.refresh();
  }

  // What is drawn first: a finding, not what remains around it.
  firstClass() {
    const classes = this.data.classes.filter(({ value }) => value > 0);
    return (classes.find(({ background }) => !background) ?? classes[0])?.value ?? 1;
  }

  setLabel(label) {
    this.label = label;
    this.refresh();
  }

  nextLabel() {
    const values = this.data.classes.map(({ value }) => value).filter((value) => value > 0);
    if (this.tool === "name") values.push(0);
    this.setLabel(values[(values.indexOf(this.label) + 1) % values.length]);
    this.say(`Class: ${className(this, this.label)}`);
  }

  setBrush(part) {
    Object.assign(this.brush, part);
    const least = Math.min(...this.grid.spacing) / 2;
    this.brush.radius = Math.min(Math.max(this.brush.radius, least), 2 * LARGEST_BRUSH * least);
    if (part.radius) this.brush.chosen = this.brush.radius;
    this.refresh();
  }

  cancel() {
    Object.assign(this, { pending: null, measureEnd: null });
    this.refresh();
  }

  // Give voxels a label, as one change that can be undone.
  paint(indexes, label, what) {
    const stroke = new Stroke(this.mask, label, what);
    stroke.add(indexes);
    this.finishStroke(stroke);
  }

  finishStroke(stroke) {
    if (!stroke.before.size) return this.refresh();
    this.history.perform(stroke.change());
    this.afterEdit();
    this.say(`${capital(stroke.what)}. Undo: U`);
  }

  // The mask has changed: what was said of it must fit.
  afterEdit() {
    this.maskVersion++;
    this.review.edits = editsBetween(this.original, this.mask);
    if (this.review.verdict === "accept" && this.review.edits) this.review.verdict = "correct";
    if (this.review.verdict === "correct" && !this.review.edits) this.review.verdict = null;
    this.changed();
  }

  restoreMask() {
    const { mask, original } = this;
    if (!mask) return;
    const before = mask.slice();
    this.history.perform({ what: "back to the original mask", redo: () => mask.set(original), undo: () => mask.set(before) });
    this.afterEdit();
    this.say("Back to the original mask. Undo: U");
  }

  addClick(xyz_mm) {
    const click = { xyz_mm: xyz_mm.map((number) => Number(number.toFixed(3))), class: className(this, this.label) };
    this.addMark("clicks", click, `named place (${click.class})`);
  }

  addDistance(a, b) {
    Object.assign(this, { pending: null, measureEnd: null });
    this.addMark("measures", { a, b }, `distance ${lengthInWords(this, distanceMm(a, b))}`);
  }

  addMark(list, mark, what) {
    this.changeMarks(list, [...this.review[list], mark], what);
  }

  removeMark(list, n) {
    this.changeMarks(list, this.review[list].filter((_, other) => other !== n), "mark taken away");
  }

  changeMarks(list, marks, what) {
    const { review } = this;
    const before = review[list];
    this.history.perform({ what, redo: () => (review[list] = marks), undo: () => (review[list] = before) });
    this.changed();
    this.say(`${capital(what)}. Undo: U`);
  }

  undo() {
    this.stepHistory("undo", "Undone");
  }

  redo() {
    this.stepHistory("redo", "Done again");
  }

  stepHistory(step, done) {
    const what = this.history[step]();
    if (!what) return this.say(`Nothing to ${step} in this case.`);
    if (this.mask) this.afterEdit();
    else this.changed();
    this.say(`${done}: ${what}`);
  }

  // --- verdicts ---

  decide(verdict) {
    const { review } = this;
    if (!this.isShown) return this.say(`${this.info.label} is not on the screen yet: look at it first.`);
    if (verdict === "accept" && review.edits) verdict = "correct";
    if (verdict === "correct" && !review.edits) {
      if (this.mask) this.setTool("brush");
      return this.say("Nothing is corrected yet: draw the correction first, then press Corrected.");
    }
    const before = { verdict: review.verdict, reviewer: review.reviewer, time: review.time };
    const after = { verdict, reviewer: this.reviewer, time: new Date().toISOString() };
    this.history.perform({
      what: VERDICT_WORDS[verdict],
      redo: () => Object.assign(review, after),
      undo: () => Object.assign(review, before),
    });
    this.spend();
    this.changed();
    const left = this.reviews.filter((each) => !each.verdict).length;
    this.say(`${this.info.label}: ${VERDICT_WORDS[verdict]}. ${left ? `${left} to do.` : "All cases are reviewed: save the decisions."}`);
    const next = this.reviews.findIndex((each, n) => n > this.caseNumber && !each.verdict);
    if (this.advance && next > 0) this.goTo(next);
  }

  setComment(comment) {
    this.review.comment = comment;
    this.changed(SAVE_MS);
  }

  setReviewer(name) {
    this.reviewer = name.trim();
    this.store.save(`${this.data.created}|reviewer`, this.reviewer).catch(() => this.storageFailed());
  }

  // --- keeping and handing on ---

  keyOf(info) {
    return [this.data.created, info.case, info.source_sha256, info.run_hash].join("|");
  }

  changed(wait = 0) {
    this.downloaded = false;
    clearTimeout(this.saving);
    if (wait) this.saving = setTimeout(() => this.save(), wait);
    else this.save();
    this.refresh();
  }

  save() {
    clearTimeout(this.saving);
    return this.store.save(this.keyOf(this.info), { ...this.review }).catch(() => this.storageFailed());
  }

  storageFailed() {
    if (!this.store.kept) return;
    this.store.kept = false;
    warnOfStorage();
    this.refresh();
  }

  spend() {
    this.review.seconds += this.watch.lap();
  }
}

const isNarrow = () => matchMedia("(max-width: 600px)").matches;

// The voxel of the mask that is nearest to where the slices hold most of it; without a mask the middle of the grid.
function startingPlace(grid, mask, unseen) {
  const sums = grid.shape.map((size) => new Float64Array(size));
  const labelled = [];
  for (let k = 0, n = 0; k < grid.shape[2]; k++)
    for (let j = 0; j < grid.shape[1]; j++)
      for (let i = 0; i < grid.shape[0]; i++, n++) {
        if (unseen.has(mask[n])) continue;
        labelled.push(i, j, k);
        sums[0][i]++;
        sums[1][j]++;
        sums[2][k]++;
      }
  if (!labelled.length) return grid.shape.map((size) => Math.floor(size / 2));
  const most = sums.map((sum) => sum.indexOf(Math.max(...sum)));
  let best = 0;
  let least = Infinity;
  for (let n = 0; n < labelled.length; n += 3) {
    const far = most.reduce((sum, index, axis) => sum + ((labelled[n + axis] - index) * grid.spacing[axis]) ** 2, 0);
    if (far < least) [best, least] = [n, far];
  }
  return labelled.slice(best, best + 3);
}
