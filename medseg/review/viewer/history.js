// This file takes changes back: strokes, verdicts, named places and distances of one case, the last one first.

class History {
  constructor() {
    this.done = [];
    this.undone = [];
  }

  // Do a change that can be undone. `change`: {what: a few words, redo(), undo()}.
  perform(change) {
    change.redo();
    this.done.push(change);
    this.undone = [];
  }

  undo() {
    return this.move(this.done, this.undone, "undo");
  }

  redo() {
    return this.move(this.undone, this.done, "redo");
  }

  // What was taken back or done again, in words; null when there was nothing.
  move(from, to, step) {
    const change = from.pop();
    if (!change) return null;
    change[step]();
    to.push(change);
    return change.what;
  }
}

// Voxels that get one label. They change at once, so that a stroke is seen while it is drawn; `change` is for the history.
class Stroke {
  constructor(voxels, label, what) {
    Object.assign(this, { voxels, label, what, before: new Map() });
  }

  add(indexes) {
    for (const index of indexes) {
      if (this.voxels[index] === this.label) continue;
      this.before.set(index, this.voxels[index]);
      this.voxels[index] = this.label;
    }
  }

  change() {
    return {
      what: this.what,
      redo: () => this.before.forEach((_, index) => (this.voxels[index] = this.label)),
      undo: () => this.before.forEach((label, index) => (this.voxels[index] = label)),
    };
  }
}
