// This file is the page at work: which case and slice is shown, and what is done to it.
//
// Cases and slices are numbers from 0 in the order of the data; a *cursor* is the cell that keys act on.

const SAVED_EVERY_S = 5; // of work in which nothing is changed

class App {
  constructor(data, store) {
    Object.assign(this, { data, store, annotator: "", caseNumber: 0, sliceNumber: 0, level: 0, lines: true, preset: 0 });
    this.works = data.cases.map(newWork);
    this.histories = data.cases.map(() => new History());
    this.cursor = [0, 0];
    this.drag = null;
    this.picture = new Picture(byId("canvas"));
    this.isDownloaded = true;
    this.unsaved = 0; // seconds
    this.usesKeys = false;
  }

  get info() {
    return this.data.cases[this.caseNumber];
  }

  get work() {
    return this.works[this.caseNumber];
  }

  get sheet() {
    return this.work.sheets[this.sliceNumber];
  }

  key(n) {
    const { source_sha256 } = this.data.cases[n];
    return ["annotation", this.data.created, this.data.title, n, source_sha256].join("|");
  }

  // Load what was kept, and show the first case.
  async start() {
    let restored = 0;
    for (const n of this.works.keys()) {
      const kept = await this.store.load(this.key(n));
      if (!kept || kept.sheets.length !== this.works[n].sheets.length) continue;
      this.works[n] = unpackedWork(kept);
      restored += 1;
    }
    this.annotator = (await this.store.load("annotator")) ?? "";
    byId("annotator").value = this.annotator;
    await this.goTo(0);
    return restored;
  }

  async goTo(number, slice = 0) {
    if (number < 0 || number >= this.data.cases.length) return;
    this.endDrag();
    this.caseNumber = number;
    this.sliceNumber = slice;
    this.geometry = new Geometry(this.info, this.data.cell);
    this.stack = null;
    this.preset = Math.min(this.preset, this.info.presets.length - 1);
    this.cursor = this.geometry.limits.map((count) => Math.floor(count / 2));
    const bytes = await gunzip(fromBase64(this.info.stack));
    if (this.caseNumber !== number) return; // somebody went on meanwhile
    this.stack = readNifti(bytes);
    this.slice = null;
    this.refresh();
  }

  // Slices of all cases follow each other.
  step(by) {
    this.endDrag();
    const next = this.sliceNumber + by;
    if (next >= this.work.sheets.length) return this.goTo(this.caseNumber + 1);
    if (next < 0) return this.caseNumber ? this.goTo(this.caseNumber - 1, this.works[this.caseNumber - 1].sheets.length - 1) : undefined;
    this.sliceNumber = next;
    this.slice = null;
    this.refresh();
  }

  // Change the slice that is shown so that it can be undone.
  change(what, act) {
    const { caseNumber, sliceNumber } = this;
    const before = copyOf(this.sheet);
    const after = copyOf(this.sheet);
    act(after);
    this.swap(what, caseNumber, sliceNumber, before, after);
  }

  swap(what, caseNumber, sliceNumber, before, after) {
    const show = (sheet) => {
      this.works[caseNumber].sheets[sliceNumber] = copyOf(sheet);
      if (this.sliceNumber !== sliceNumber) this.slice = null;
      this.sliceNumber = sliceNumber;
    };
    this.histories[caseNumber].perform({ what, redo: () => show(after), undo: () => show(before) });
    this.keep();
  }

  toggle(place) {
    this.usesKeys = true;
    const name = nameOf(place);
    this.change(this.sheet.ticked.has(name) ? "tick taken away" : "tick", (sheet) => {
      if (!sheet.ticked.delete(name)) sheet.ticked.add(name);
      this.reopen(sheet);
    });
  }

  // A drag ticks, or takes ticks away, after what it does to its first cell; it is undone as one.
  beginDrag(x, y) {
    const place = this.picture.placeAt(this.geometry, x, y);
    if (!place) return;
    this.usesKeys = false;
    this.drag = { before: copyOf(this.sheet), adds: !this.sheet.ticked.has(nameOf(place)), x, y };
    this.dragTo(x, y);
  }

  dragTo(x, y) {
    if (!this.drag) return;
    const { drag } = this;
    const here = this.picture.boxOf(this.geometry, [0, 0]);
    const size = Math.max(Math.min(here.width, here.height) / 4, 1); // a fast mouse skips no cell
    const steps = Math.max(Math.ceil(Math.hypot(x - drag.x, y - drag.y) / size), 1);
    for (let n = 1; n <= steps; n++) {
      const place = this.picture.placeAt(this.geometry, drag.x + ((x - drag.x) * n) / steps, drag.y + ((y - drag.y) * n) / steps);
      if (!place) continue;
      this.sheet.ticked[drag.adds ? "add" : "delete"](nameOf(place));
      this.cursor = place;
    }
    Object.assign(drag, { x, y });
    this.reopen(this.sheet);
    this.refresh();
  }

  // What was said of the whole slice no longer fits: "none" with a tick, "all ticked" without one.
  reopen(sheet) {
    if (sheet.state === (sheet.ticked.size ? "none" : "done")) sheet.state = "open";
  }

  endDrag() {
    if (!this.drag) return;
    const { before, adds } = this.drag;
    this.drag = null;
    this.swap(adds ? "ticks" : "ticks taken away", this.caseNumber, this.sliceNumber, before, copyOf(this.sheet));
  }

  // The slice is judged as a whole. One without a tick needs the other word for it, which cannot be said by mistake.
  finish() {
    this.endDrag();
    if (!this.sheet.ticked.size && this.sheet.state !== "none") {
      return this.say("No cell is ticked. If there is no vessel in this slice, press X; else go on with PgDn.");
    }
    if (this.sheet.state === "open") this.change("slice finished", (sheet) => (sheet.state = "done"));
    return this.step(1);
  }

  sayNone() {
    this.endDrag();
    const taken = this.sheet.state === "none";
    this.change(taken ? "“no vessel” taken back" : "no vessel", (sheet) => {
      sheet.state = taken ? "open" : "none";
      sheet.ticked.clear();
    });
    if (!taken) this.step(1);
  }

  moveCursor(across, down) {
    this.usesKeys = true;
    this.cursor = this.geometry.moved(this.cursor, across, down);
    this.refresh();
  }

  undo() {
    this.afterwards(this.histories[this.caseNumber].undo(), "Undone");
  }

  redo() {
    this.afterwards(this.histories[this.caseNumber].redo(), "Done again");
  }

  afterwards(what, word) {
    if (!what) return this.say(`Nothing to ${word === "Undone" ? "undo" : "redo"} in this case.`);
    this.keep();
    this.say(`${word}: ${what}.`);
  }

  nextPreset() {
    this.setPreset((this.preset + 1) % this.info.presets.length);
  }

  setPreset(preset) {
    Object.assign(this, { preset, level: 0, slice: null });
    this.refresh();
  }

  setLevel(level) {
    this.level = Math.max(-100, Math.min(100, level));
    this.slice = null;
    this.refresh();
  }

  setLines(lines) {
    this.lines = lines;
    this.refresh();
  }

  setAnnotator(name) {
    this.annotator = name.trim();
    this.store.save("annotator", this.annotator);
  }

  // Note a change and keep it.
  keep() {
    this.work.time = new Date().toISOString();
    this.isDownloaded = false;
    this.save();
    this.refresh();
  }

  async save() {
    const n = this.caseNumber;
    try {
      await this.store.save(this.key(n), packedWork(this.works[n]));
    } catch {
      this.store.kept = false;
      warnOfStorage();
    }
  }

  spend(seconds) {
    this.work.seconds += seconds;
    this.unsaved += seconds;
    if (this.unsaved < SAVED_EVERY_S) return;
    this.unsaved = 0;
    this.save();
    refreshPanel(this);
  }

  download() {
    const found = annotationsOf(this.data, this.works, this.annotator);
    if (!found.annotations.length) return this.say("Nothing is ticked yet.");
    if (!this.annotator) {
      byId("annotator").focus();
      return this.say("Please enter your name first: the file says who ticked.");
    }
    const link = element("a", { download: FILE });
    link.href = URL.createObjectURL(new Blob([JSON.stringify(found, null, 1)], { type: "application/json" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000); // a browser that asks where to save needs it a while
    this.isDownloaded = true;
    const unfinished = this.works.flatMap(({ sheets }) => sheets).filter(({ ticked, state }) => ticked.size && state === "open").length;
    const left = unfinished ? ` ${unfinished} ticked ${unfinished === 1 ? "slice is" : "slices are"} not finished (Enter): the other cells there count as unknown.` : "";
    return this.say(`Saved ${FILE}.${left}`);
  }

  say(words) {
    byId("status").textContent = words;
  }

  // Show everything anew.
  refresh() {
    if (!this.stack) return;
    this.draw();
    this.say(sheetInWords(this.sheet));
    refreshPanel(this);
  }

  draw() {
    if (!this.stack) return;
    if (!this.slice) {
      const { low, high } = this.info.presets[this.preset];
      const white = high - ((high - low) * this.level) / 125; // never down to black
      this.slice = sliceCanvas(this.stack, this.geometry, this.sliceNumber, low, white);
    }
    const { geometry, slice, sheet, cursor, lines } = this;
    this.picture.draw({ geometry, slice, sheet, cursor: this.usesKeys ? cursor : null, lines });
  }
}
