// This file turns mouse, pen and fingers on a plane into actions: what a tool does at a place.
//
// A *tool* acts where the left button, one finger or a pen goes down, or at the crosshair when Enter is pressed, so that
// all but free drawing also works without a mouse. The right button changes the window, the middle one moves the picture,
// the wheel changes the slice (with Ctrl: zooms), two fingers zoom.

const TOOLS = [
  { id: "cursor", key: "x", name: "Crosshair", say: "Click a place: all planes go there." },
  { id: "measure", key: "d", name: "Distance", say: "Drag from one place to another. Keyboard: Enter at each end." },
  { id: "brush", key: "b", name: "Brush", say: "Draw the chosen class. Keyboard: Enter at the crosshair.", draws: true },
  { id: "eraser", key: "e", name: "Eraser", say: "Take away what is under the brush.", draws: true },
  { id: "fill", key: "f", name: "Fill hole", say: "Click inside a closed outline of this slice: it is filled.", draws: true },
  { id: "remove", key: "k", name: "Remove part", say: "Click a connected part of the mask: the whole part goes.", draws: true },
  { id: "name", key: "g", name: "Name place", say: "Click a place to record that it belongs to the chosen class." },
];
const WHEEL_STEP_PIXELS = 40; // a touchpad sends many small steps
const SHORTEST_DISTANCE_PIXELS = 3; // a shorter drag was a click

// What the tools do at a place of a plane, given as voxel indices with fractions.
const ACTIONS = {
  cursor: (app, plane, ijk) => app.moveTo(ijk),

  // Enter: the first end, then the second one.
  measure(app, plane, ijk) {
    const here = toMm(app.grid, ijk);
    if (!app.pending) {
      app.pending = here;
      return app.say("First end set. Go to the other end and press Enter.");
    }
    app.addDistance(app.pending, here);
  },

  brush: (app, plane, ijk) => paintOnce(app, plane, ijk, app.label, "brush stroke"),
  eraser: (app, plane, ijk) => paintOnce(app, plane, ijk, 0, "erasing"),

  fill(app, plane, ijk) {
    const start = clampTo(app.grid, ijk);
    if (app.mask[voxelIndex(app.grid, start)] === app.label) return app.say("This place already has the class.");
    const { indexes, open } = connected(app.grid, app.mask, start, { plane: plane.cut, corners: false });
    if (open) return app.say("The outline is open: the area reaches the edge of the slice. Close it with the brush.");
    app.paint(indexes, app.label, `fill of ${indexes.length} voxels`);
  },

  remove(app, plane, ijk) {
    const start = labelledNear(app.grid, app.mask, clampTo(app.grid, ijk), plane.cut);
    if (!start) return app.say("No part of the mask is here.");
    const within = app.kind === "frames" ? plane.cut : null; // a part of a frame, not of all frames
    const { indexes } = connected(app.grid, app.mask, start, { plane: within });
    app.paint(indexes, 0, `removal of a part of ${volumeInWords(app, indexes.length)}`);
  },

  name(app, plane, ijk) {
    const place = clampTo(app.grid, ijk);
    app.addClick(toMm(app.grid, place));
  },
};

function paintOnce(app, plane, ijk, label, what) {
  app.paint(ballAround(app.grid, ijk, app.brush.radius, app.brush.ball ? null : plane.cut), label, what);
}

// A slab shows many slices at once, so it would not be clear which one is drawn on.
function mayDraw(app, plane) {
  const tool = TOOLS.find((each) => each.id === app.tool);
  const [first, last] = plane.slab;
  if (!tool.draws || first === last) return true;
  app.say("Drawing needs a single slice: set the slab to 0.");
  return false;
}

function act(app, plane, ijk) {
  if (isInside(app.grid, ijk.map(Math.round)) && mayDraw(app, plane)) ACTIONS[app.tool](app, plane, ijk);
}

// Listen to a plane's canvas.
function listen(app, plane) {
  const { canvas } = plane;
  const fingers = new Map();
  let drag = null; // {move(x, y), end()} of the button that is down
  let rolled = 0;

  const placeOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (!app.grid) return;
    event.preventDefault();
    plane.root.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, placeOf(event));
    if (fingers.size === 2) {
      drag?.cancel?.();
      drag = pinch(plane, fingers);
    } else if (fingers.size === 1) {
      drag = [beginTool, beginPan, beginWindow][event.button]?.(app, plane, ...placeOf(event)) ?? null;
    }
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!app.grid) return;
    plane.pointer = placeOf(event);
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, plane.pointer);
    drag?.move(...plane.pointer);
    app.refresh();
  });
  const end = (event) => {
    if (fingers.delete(event.pointerId) && !fingers.size) {
      drag?.end?.();
      drag = null;
    }
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", () => {
    plane.pointer = null;
    app.refresh();
  });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => app.tool === "cursor" && app.enlarge(app.large ? null : plane.name));
  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!app.grid) return;
      event.preventDefault();
      if (event.ctrlKey) return plane.zoomBy(event.deltaY < 0 ? 1.15 : 1 / 1.15, ...placeOf(event));
      rolled += event.deltaMode ? Math.sign(event.deltaY) * WHEEL_STEP_PIXELS : event.deltaY;
      const steps = Math.trunc(rolled / WHEEL_STEP_PIXELS);
      rolled -= steps * WHEEL_STEP_PIXELS;
      if (steps) app.stepSlice(plane, -steps);
    },
    { passive: false },
  );
  plane.root.addEventListener("focus", () => app.activate(plane));
}

function beginTool(app, plane, x, y) {
  const start = plane.fromScreen(x, y);
  if (app.tool === "cursor") {
    app.moveTo(start);
    return { move: (nx, ny) => app.moveTo(plane.fromScreen(nx, ny)) };
  }
  if (app.tool === "measure") return beginDistance(app, plane, x, y);
  if (app.tool === "brush" || app.tool === "eraser") return beginStroke(app, plane, start);
  act(app, plane, start);
  return null;
}

function beginDistance(app, plane, x, y) {
  const start = toMm(app.grid, plane.fromScreen(x, y));
  let length = 0;
  app.pending = start;
  const stop = () => Object.assign(app, { pending: null, measureEnd: null });
  return {
    move(nx, ny) {
      length = Math.hypot(nx - x, ny - y);
      app.measureEnd = toMm(app.grid, plane.fromScreen(nx, ny));
    },
    end() {
      const to = app.measureEnd;
      stop();
      if (to && length >= SHORTEST_DISTANCE_PIXELS) app.addDistance(start, to);
      app.refresh();
    },
    cancel: stop,
  };
}

function beginStroke(app, plane, start) {
  if (!mayDraw(app, plane)) return null;
  const label = app.tool === "eraser" ? 0 : app.label;
  const stroke = new Stroke(app.mask, label, label ? "brush stroke" : "erasing");
  const within = app.brush.ball ? null : plane.cut;
  let last = start;
  // Places close enough together that a fast stroke has no gaps.
  const to = (ijk) => {
    const length = distanceMm(toMm(app.grid, last), toMm(app.grid, ijk));
    const steps = Math.max(1, Math.ceil(length / Math.max(app.brush.radius / 2, Math.min(...app.grid.spacing) / 2)));
    for (let n = 1; n <= steps; n++) {
      const between = last.map((number, axis) => number + ((ijk[axis] - number) * n) / steps);
      if (isInside(app.grid, between.map(Math.round))) stroke.add(ballAround(app.grid, between, app.brush.radius, within));
    }
    last = ijk;
    app.maskVersion++;
    app.refresh();
  };
  to(start);
  return {
    move: (x, y) => to(plane.fromScreen(x, y)),
    end: () => app.finishStroke(stroke),
    cancel: () => app.finishStroke(stroke),
  };
}

// The right button, as radiology stations have it: to the right widens the window, downwards raises the level.
function beginWindow(app, plane, x, y) {
  const { low, high } = app.view;
  const perPixel = Math.max(high - low, app.range / 256) / 300;
  return {
    move(nx, ny) {
      const width = Math.max(high - low + (nx - x) * perPixel, app.range / 10000);
      const level = (low + high) / 2 + (ny - y) * perPixel;
      app.setWindow(level - width / 2, level + width / 2);
    },
  };
}

function beginPan(app, plane, x, y) {
  const before = [...plane.pan];
  return {
    move: (nx, ny) => (plane.pan = [before[0] + nx - x, before[1] + ny - y]),
  };
}

function pinch(plane, fingers) {
  const apart = () => {
    const [a, b] = [...fingers.values()];
    return Math.max(Math.hypot(a[0] - b[0], a[1] - b[1]), 1);
  };
  let last = apart();
  return {
    move() {
      if (fingers.size < 2) return;
      const [a, b] = [...fingers.values()];
      const now = apart();
      plane.zoomBy(now / last, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
      last = now;
    },
  };
}
