// This file hands the work on: the decisions file and the corrected masks, as downloads.

function saveDecisions(app) {
  if (!app.reviews.some(({ verdict }) => verdict)) return app.say("No case has a verdict yet.");
  if (!app.reviewer) {
    byId("reviewer").focus();
    return app.say("Please enter your name first: the decisions file needs a reviewer.");
  }
  app.spend();
  download(DECISIONS_FILE, JSON.stringify(decisionsOf(app.data, app.reviews, app.reviewer), null, 2), "application/json");
  const masks = app.reviews.filter(({ verdict }) => verdict === "correct").length;
  const left = app.reviews.filter(({ verdict }) => !verdict).length;
  app.downloaded = !masks;
  app.say(`Saved ${DECISIONS_FILE}.${masks ? ` Save the ${several(masks, "corrected mask")} too.` : ""}${left ? ` Without a verdict, and so not in it: ${several(left, "case")}.` : ""}`);
}

const several = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

async function saveMask(app, n) {
  download(maskName(app.data.cases[n]), await correctedMask(app, n), "application/gzip");
}

async function saveAll(app) {
  if (!app.reviewer) return saveDecisions(app);
  saveDecisions(app);
  for (const [n, { verdict }] of app.reviews.entries()) {
    if (verdict !== "correct") continue;
    await saveMask(app, n);
    await new Promise((resolve) => setTimeout(resolve, 300)); // browsers drop downloads that come at once
  }
  app.downloaded = true;
}

// The mask as it is now, as a .nii.gz file whose header is the original one.
async function correctedMask(app, n) {
  const info = app.data.cases[n];
  const { head, voxels } = readNifti(await unpacked(app.data, info.mask));
  return gzip(withVoxels(head, withEdits(voxels, app.reviews[n].edits)));
}
