// This file holds what a reviewer says of a case, and writes it out.
//
// A *review* is: verdict (accept, correct, reject or null), reviewer, time, seconds spent, comment, clicks (named
// places), measures (distances), edits. *Edits* are the voxels of the mask that differ from the original one, or null.

const DECISIONS_FILE = "medseg_decisions.json";
const VERDICT_WORDS = { accept: "accepted", correct: "corrected", reject: "rejected" };
const VERDICT_SIGNS = { accept: "✓", correct: "✎", reject: "✕" };
const LOOKED_AWAY_S = 60; // after this long without a key or the mouse, nobody is looking

const newReview = () => ({
  verdict: null, reviewer: "", time: null, seconds: 0, comment: "", clicks: [], measures: [], edits: null,
});

function editsBetween(original, mask) {
  const index = [];
  for (let n = 0; n < mask.length; n++) if (mask[n] !== original[n]) index.push(n);
  return index.length ? { index: Uint32Array.from(index), label: Uint8Array.from(index, (n) => mask[n]) } : null;
}

function withEdits(original, edits) {
  const mask = original.slice();
  edits?.index.forEach((index, n) => (mask[index] = edits.label[n]));
  return mask;
}

const maskName = (info) => `${info.case}_corrected.nii.gz`;

function decisionOf(info, review, reviewer) {
  return {
    case: info.case,
    source_sha256: info.source_sha256,
    run_hash: info.run_hash,
    verdict: review.verdict,
    reviewer: review.reviewer || reviewer,
    time: review.time,
    seconds: Math.round(review.seconds),
    comment: review.comment,
    clicks: review.clicks,
    mask: review.verdict === "correct" ? maskName(info) : null,
  };
}

function decisionsOf(data, reviews, reviewer) {
  return {
    schema: "medseg-decisions/1",
    software: data.software,
    page_created: data.created,
    decisions: data.cases
      .map((info, n) => [info, reviews[n]])
      .filter(([, review]) => review.verdict)
      .map(([info, review]) => decisionOf(info, review, reviewer)),
  };
}

function download(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000); // a browser that asks where to save needs it a while
}

// Counts the seconds in which somebody looks at a case.
class Stopwatch {
  constructor() {
    this.last = this.active = performance.now();
    for (const event of ["pointermove", "pointerdown", "keydown", "wheel"])
      addEventListener(event, () => (this.active = performance.now()), { passive: true, capture: true });
  }

  // Seconds since the last call.
  lap() {
    const now = performance.now();
    const until = Math.min(now, this.active + LOOKED_AWAY_S * 1000);
    const seconds = document.hidden ? 0 : Math.max(0, until - this.last) / 1000;
    this.last = now;
    return seconds;
  }
}
