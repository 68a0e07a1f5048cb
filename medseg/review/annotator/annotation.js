// This file holds what was ticked, and writes it out.
//
// A *sheet* is a slice: its ticked cells as "row,column", and its state: `open` (not judged as a whole), `done` (every
// vessel is ticked) or `none` (it holds no vessel). What was undone is not written.

const FILE = "medseg_annotation.json";

const newSheet = () => ({ ticked: new Set(), state: "open" });
const nameOf = (place) => place.join(",");
const placeOf = (name) => name.split(",").map(Number);
const copyOf = (sheet) => ({ ticked: new Set(sheet.ticked), state: sheet.state });
const isTouched = (sheet) => sheet.state !== "open" || sheet.ticked.size > 0;

const newWork = (info) => ({ sheets: info.indices.map(newSheet), seconds: 0, time: null });

// As plain data for the browser's storage, and back.
const packedWork = ({ sheets, seconds, time }) => ({
  seconds, time, sheets: sheets.map(({ ticked, state }) => ({ ticked: [...ticked], state })),
});
const unpackedWork = ({ sheets, seconds, time }) => ({
  seconds, time, sheets: sheets.map(({ ticked, state }) => ({ ticked: new Set(ticked), state })),
});

function annotationOf(info, work, cell, annotator) {
  const inOrder = (a, b) => a[0] - b[0] || a[1] - b[1];
  const slices = work.sheets
    .map((sheet, n) => ({ index: info.indices[n], ticked: [...sheet.ticked].map(placeOf).sort(inOrder), seen: sheet.state !== "open" }))
    .filter((_, n) => isTouched(work.sheets[n]))
    .sort((a, b) => a.index - b.index);
  const { source_sha256, shape, affine, plane } = info;
  return {
    case: info.case, source_sha256, shape, affine, plane, cell, slices,
    seconds: Math.round(work.seconds * 10) / 10, annotator, time: work.time,
  };
}

// The download: cases in which nothing was done are not in it.
function annotationsOf(data, works, annotator) {
  return {
    schema: data.schema,
    software: data.software,
    page_created: data.created,
    annotations: data.cases
      .map((info, n) => [info, works[n]])
      .filter(([, work]) => work.sheets.some(isTouched))
      .map(([info, work]) => annotationOf(info, work, data.cell, annotator)),
  };
}

// Counts the seconds of work: a pause that is longer than allowed does not count at all.
class ActiveTime {
  constructor(pause, spent) {
    this.last = null;
    const note = () => {
      const now = performance.now();
      const gap = this.last === null ? 0 : (now - this.last) / 1000;
      this.last = document.hidden ? null : now;
      if (gap > 0 && gap <= pause) spent(gap);
    };
    for (const event of ["pointermove", "pointerdown", "keydown", "wheel", "visibilitychange"])
      addEventListener(event, note, { passive: true, capture: true });
  }
}
