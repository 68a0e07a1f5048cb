// This file draws one plane: the slice or slab, colour layer, mask, crosshair, marks and letters.
//
// A *slab* is the slices within half a thickness of the shown one; of each line of sight the brightest voxel is seen
// (maximum intensity projection). *Raw* is the scan as stored. Pictures of a slice are made at one pixel a voxel and
// scaled by the browser: the scan smoothly, mask and layers without smoothing, so that every voxel can be judged.

// Told apart by the colour-blind, on grey too; they are the page's own, whatever the classes file says.
const CLASS_COLOURS = ["#ff8f1f", "#4db8ff", "#f5e663", "#d98cc4", "#2ec4a6", "#e8704f"];
const LAYER_COLOURS = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"]; // viridis
const MARK_COLOUR = "#ffe14d";
const MOST_ZOOM = 20;
const SCALE_BARS = [1, 2, 5, 10, 20, 50, 100, 200]; // lengths in mm; the longest that fits a quarter of the pane is drawn
const OUTLINE_WIDTH = 1.5;

const classColour = (label) => CLASS_COLOURS[(label - 1) % CLASS_COLOURS.length];
const rgbOf = (colour) => [1, 3, 5].map((n) => parseInt(colour.slice(n, n + 2), 16));

class Plane {
  constructor(app, name) {
    Object.assign(this, { app, name, zoom: 1, pan: [0, 0], pointer: null, made: {} });
    this.root = document.getElementById(`pane-${name}`);
    this.canvas = this.root.querySelector("canvas");
    this.slider = this.root.querySelector(".slice");
    this.output = this.root.querySelector("output");
    this.slider.addEventListener("input", () => app.moveSlice(this, this.sliceOfSlider(Number(this.slider.value))));
    new ResizeObserver(() => app.refresh()).observe(this.canvas);
  }

  // Take up a new case.
  show() {
    const { grid, kind } = this.app;
    this.cut = planeOf(grid, this.name);
    Object.assign(this, { zoom: 1, pan: [0, 0], made: {} });
    const word = kind === "frames" ? "Frame" : `${capital(this.name)} slice`;
    this.root.setAttribute("aria-label", kind === "frames" ? "Frames" : `${capital(this.name)} plane`);
    this.slider.setAttribute("aria-label", word);
    Object.assign(this.slider, { min: 1, max: grid.shape[this.cut.normal], step: 1 });
  }

  get slice() {
    return this.app.cursor[this.cut.normal];
  }

  // Sliders and numbers count from below, behind or the left upwards; voxel indices may run the other way.
  sliceOfSlider(number) {
    return this.cut.upwards > 0 ? number - 1 : this.app.grid.shape[this.cut.normal] - number;
  }

  get number() {
    return this.cut.upwards > 0 ? this.slice + 1 : this.app.grid.shape[this.cut.normal] - this.slice;
  }

  get slab() {
    const { grid, view } = this.app;
    const half = Math.floor(view.slab / grid.spacing[this.cut.normal] / 2);
    const last = grid.shape[this.cut.normal] - 1;
    return [Math.max(this.slice - half, 0), Math.min(this.slice + half, last)];
  }

  // Pixels of the screen for each voxel, and where the slice's corner lies.
  place() {
    const { grid } = this.app;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const size = [this.cut.u, this.cut.v].map((axis) => grid.shape[axis] * grid.spacing[axis]);
    const scale = Math.max(Math.min(width / size[0], height / size[1]) * this.zoom, 1e-6); // pixels for each mm
    return {
      scale,
      pixel: [scale * grid.spacing[this.cut.u], scale * grid.spacing[this.cut.v]],
      corner: [width / 2 - (size[0] * scale) / 2 + this.pan[0], height / 2 - (size[1] * scale) / 2 + this.pan[1]],
      size: [size[0] * scale, size[1] * scale],
    };
  }

  toScreen(ijk) {
    const { pixel, corner } = this.place();
    return toPlane(this.app.grid, this.cut, ijk).map((number, n) => corner[n] + number * pixel[n]);
  }

  fromScreen(x, y) {
    const { pixel, corner } = this.place();
    const xy = [(x - corner[0]) / pixel[0], (y - corner[1]) / pixel[1]];
    return fromPlane(this.app.grid, this.cut, xy, this.slice);
  }

  zoomBy(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const wanted = Math.min(Math.max(this.zoom * factor, 1), MOST_ZOOM);
    const centre = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
    const ratio = wanted / this.zoom;
    this.pan = this.pan.map((number, n) => [x, y][n] - centre[n] - ([x, y][n] - centre[n] - number) * ratio);
    if (wanted === 1) this.pan = [0, 0];
    this.zoom = wanted;
    this.app.refresh();
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    if (!width || !height) return;
    if (this.canvas.width !== Math.round(width * ratio)) this.canvas.width = Math.round(width * ratio);
    if (this.canvas.height !== Math.round(height * ratio)) this.canvas.height = Math.round(height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, width, height);
    const at = this.place();
    this.drawScan(pen, at);
    this.drawLayer(pen, at);
    this.drawMask(pen, at);
    this.drawMarks(pen, at);
    this.drawWords(pen, at, width, height);
    this.slider.value = this.number;
    this.slider.setAttribute("aria-valuetext", `${this.number} of ${this.slider.max}`);
    this.output.textContent = `${this.number} / ${this.slider.max}`;
  }

  // Make something anew only when what it depends on has changed.
  kept(name, key, make) {
    if (this.made[name]?.key !== key) this.made[name] = { key, value: make() };
    return this.made[name].value;
  }

  // The brightest (or the highest label) of the slab, in screen order.
  flat(voxels) {
    const { grid } = this.app;
    const { u, v, normal, flipU, flipV } = this.cut;
    const [width, height] = [grid.shape[u], grid.shape[v]];
    const [stepU, stepV] = [flipU ? -grid.strides[u] : grid.strides[u], flipV ? -grid.strides[v] : grid.strides[v]];
    const start = (flipU ? (width - 1) * grid.strides[u] : 0) + (flipV ? (height - 1) * grid.strides[v] : 0);
    const flat = new voxels.constructor(width * height);
    const [first, last] = this.slab;
    for (let slice = first; slice <= last; slice++) {
      let from = start + slice * grid.strides[normal];
      for (let y = 0, to = 0; y < height; y++, from += stepV - width * stepU)
        for (let x = 0; x < width; x++, to++, from += stepU)
          if (slice === first || voxels[from] > flat[to]) flat[to] = voxels[from];
    }
    return { width, height, flat };
  }

  // A picture of one pixel a voxel. `colour` writes red, green, blue and opacity of a value into four places.
  picture({ width, height, flat }, colour) {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    const image = pen.createImageData(width, height);
    for (let n = 0; n < flat.length; n++) colour(flat[n], image.data, 4 * n);
    pen.putImageData(image, 0, 0);
    return canvas;
  }

  drawScan(pen, at) {
    const { image, view } = this.app;
    const where = this.slab.join();
    const slab = this.kept("scan", where, () => this.flat(image.voxels));
    const picture = this.kept("grey", [where, view.low, view.high].join(), () => {
      const gain = 255 / Math.max(view.high - view.low, 1e-9);
      return this.picture(slab, (raw, data, n) => {
        data[n] = data[n + 1] = data[n + 2] = (raw * image.slope + image.inter - view.low) * gain;
        data[n + 3] = 255;
      });
    });
    pen.imageSmoothingEnabled = true;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(picture, ...at.corner, ...at.size);
  }

  drawLayer(pen, at) {
    const { layers, view } = this.app;
    const layer = layers[view.layer];
    if (layer) {
      const picture = this.kept("layer", [view.layer, ...this.slab].join(), () =>
        this.picture(this.flat(layer.voxels), (raw, data, n) => {
          const value = Math.min(Math.max(raw * layer.slope + layer.inter, 0), 1);
          const [red, green, blue] = layerColour(value);
          data.set([red, green, blue, 255 * Math.min(value * 4, 1) * 0.7], n); // what is nearly 0 hides nothing
        }),
      );
      pen.imageSmoothingEnabled = false;
      pen.drawImage(picture, ...at.corner, ...at.size);
    }
    if (view.region && layers.region) {
      const edges = this.kept("region", this.slab.join(), () => outlines(this.flat(layers.region.voxels)));
      for (const path of edges.values()) this.strokeEdges(pen, at, path, "#d9dde3", [4, 4]);
    }
  }

  drawMask(pen, at) {
    const { mask, view, maskVersion, hidden } = this.app;
    if (!view.mask) return;
    const where = [maskVersion, ...this.slab].join();
    const slab = this.kept("labels", where, () => this.flat(mask));
    if (view.outline) {
      const edges = this.kept("outline", where, () => outlines(slab));
      for (const [label, path] of edges) if (!hidden.has(label)) this.strokeEdges(pen, at, path, classColour(label), []);
      return;
    }
    const picture = this.kept("fill", where, () => {
      const colours = Array.from({ length: 256 }, (_, label) => (hidden.has(label) ? [0, 0, 0, 0] : [...rgbOf(classColour(label)), 255]));
      return this.picture(slab, (label, data, n) => data.set(colours[label], n));
    });
    pen.globalAlpha = view.opacity;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(picture, ...at.corner, ...at.size);
    pen.globalAlpha = 1;
  }

  strokeEdges(pen, at, path, colour, dash) {
    const scaled = new Path2D();
    scaled.addPath(path, new DOMMatrix([at.pixel[0], 0, 0, at.pixel[1], ...at.corner]));
    pen.setLineDash(dash);
    pen.strokeStyle = colour;
    pen.lineWidth = OUTLINE_WIDTH;
    pen.stroke(scaled);
    pen.setLineDash([]);
  }

  // Crosshair, brush, named places and distances.
  drawMarks(pen, at) {
    const { app } = this;
    const [x, y] = this.toScreen(app.cursor);
    if (app.view.cross) drawCrosshair(pen, x, y, at);
    app.review.measures.forEach(({ a, b }) => this.drawDistance(pen, a, b));
    if (app.pending) this.drawDistance(pen, app.pending, app.measureEnd ?? toMm(app.grid, app.cursor));
    app.review.clicks.forEach((click, n) => {
      const ijk = toVoxel(app.grid, click.xyz_mm);
      if (!this.inSlab(ijk)) return;
      const [cx, cy] = this.toScreen(ijk);
      pen.strokeStyle = MARK_COLOUR;
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(cx, cy, 6, 0, 2 * Math.PI);
      pen.stroke();
      drawText(pen, `${n + 1} ${click.class}`, cx + 9, cy + 4, { colour: MARK_COLOUR });
    });
    if (this.pointer && (app.tool === "brush" || app.tool === "eraser")) {
      const radius = app.brush.radius * at.scale;
      pen.strokeStyle = app.tool === "brush" ? classColour(app.label) : "#fff";
      pen.lineWidth = 1.5;
      pen.beginPath();
      pen.arc(...this.pointer, Math.max(radius, 2), 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  inSlab(ijk) {
    const [first, last] = this.slab;
    return ijk[this.cut.normal] >= first - 0.6 && ijk[this.cut.normal] <= last + 0.6;
  }

  drawDistance(pen, a, b) {
    const ends = [a, b].map((mm) => toVoxel(this.app.grid, mm));
    if (!ends.every((ijk) => this.inSlab(ijk))) return;
    const [[ax, ay], [bx, by]] = ends.map((ijk) => this.toScreen(ijk));
    for (const [width, colour] of [[4, "#000"], [2, MARK_COLOUR]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.beginPath();
      pen.moveTo(ax, ay);
      pen.lineTo(bx, by);
      for (const [cx, cy] of [[ax, ay], [bx, by]]) {
        pen.moveTo(cx + 3, cy);
        pen.arc(cx, cy, 3, 0, 2 * Math.PI);
      }
      pen.stroke();
    }
    drawText(pen, lengthInWords(this.app, distanceMm(a, b)), (ax + bx) / 2 + 8, (ay + by) / 2 - 6, { colour: MARK_COLOUR });
  }

  drawWords(pen, at, width, height) {
    const { app } = this;
    const { view, kind, unit } = app;
    if (kind !== "frames") {
      const letters = LETTERS[this.name];
      const big = { size: 15, weight: 700 };
      drawText(pen, letters.left, 6, height / 2 + 5, big);
      drawText(pen, letters.right, width - 6, height / 2 + 5, { ...big, align: "right" });
      drawText(pen, letters.top, width / 2, 17, { ...big, align: "center" });
      drawText(pen, letters.bottom, width / 2, height - 6, { ...big, align: "center" });
    }
    const [first, last] = this.slab;
    const notes = [kind === "frames" ? "Frames" : capital(this.name)];
    if (kind !== "frames" && this.cut.tiltDeg > NOTEWORTHY_TILT_DEG) notes[0] += `, tilted ${Math.round(this.cut.tiltDeg)}°`;
    if (last > first) notes.push(`MIP of ${last - first + 1} slices`);
    notes.forEach((words, n) => drawText(pen, words, 6, 17 + 16 * n, {}));
    drawText(pen, `W ${short(view.high - view.low)}  L ${short((view.high + view.low) / 2)}`, 6, height - 6, {});
    const bar = SCALE_BARS.filter((mm) => mm * at.scale <= width / 4).pop();
    if (unit === "mm" && bar) {
      const [right, y] = [width - 10, height - 8];
      pen.fillStyle = "#000";
      pen.fillRect(right - bar * at.scale - 1, y - 3, bar * at.scale + 2, 5);
      pen.fillStyle = "#e6e9ee";
      pen.fillRect(right - bar * at.scale, y - 2, bar * at.scale, 3);
      drawText(pen, bar < 10 ? `${bar} mm` : `${bar / 10} cm`, right, y - 7, { align: "right" });
    }
  }
}

// For each label the edges between its pixels and others, in pixels.
function outlines({ width, height, flat }) {
  const paths = new Map();
  const edge = (label, x1, y1, x2, y2) => {
    if (!label) return;
    if (!paths.has(label)) paths.set(label, new Path2D());
    paths.get(label).moveTo(x1, y1);
    paths.get(label).lineTo(x2, y2);
  };
  for (let y = 0; y <= height; y++)
    for (let x = 0; x <= width; x++) {
      const here = x < width && y < height ? flat[y * width + x] : 0;
      const left = x > 0 && y < height ? flat[y * width + x - 1] : 0;
      const above = y > 0 && x < width ? flat[(y - 1) * width + x] : 0;
      if (here !== left) [here, left].forEach((label) => edge(label, x, y, x, y + 1));
      if (here !== above) [here, above].forEach((label) => edge(label, x, y, x + 1, y));
    }
  return paths;
}

function layerColour(value) {
  const place = value * (LAYER_COLOURS.length - 1);
  const n = Math.min(Math.floor(place), LAYER_COLOURS.length - 2);
  const [from, to] = [LAYER_RGB[n], LAYER_RGB[n + 1]];
  return from.map((number, channel) => number + (to[channel] - number) * (place - n));
}
const LAYER_RGB = LAYER_COLOURS.map(rgbOf);

// Two lines with a gap, so that the place itself stays visible.
function drawCrosshair(pen, x, y, at) {
  const gap = Math.max(8, Math.min(...at.pixel));
  const [left, top] = at.corner;
  const [right, bottom] = [left + at.size[0], top + at.size[1]];
  pen.strokeStyle = "#9fd0ffb0";
  pen.lineWidth = 1;
  pen.beginPath();
  for (const [x1, y1, x2, y2] of [
    [left, y, x - gap, y],
    [x + gap, y, right, y],
    [x, top, x, y - gap],
    [x, y + gap, x, bottom],
  ]) {
    if (x2 <= x1 && y2 <= y1) continue;
    pen.moveTo(x1, y1);
    pen.lineTo(x2, y2);
  }
  pen.stroke();
}

// Words with a dark edge, so that they can be read on bright tissue too.
function drawText(pen, words, x, y, { colour = "#e6e9ee", size = 12, weight = 400, align = "left" }) {
  pen.font = `${weight} ${size}px system-ui, sans-serif`;
  pen.textAlign = align;
  pen.lineJoin = "round";
  pen.lineWidth = 3;
  pen.strokeStyle = "#000c";
  pen.strokeText(words, x, y);
  pen.fillStyle = colour;
  pen.fillText(words, x, y);
}

const capital = (word) => word[0].toUpperCase() + word.slice(1);
const short = (number) => (Math.abs(number) >= 100 ? number.toFixed(0) : Number(number.toPrecision(3)).toString());
