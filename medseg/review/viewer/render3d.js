// This file draws the mask in 3-D with NiiVue.
//
// NiiVue gets volumes of bytes made for it: the scan, faint, and each class, a little smoothed so that its surface is
// not made of steps. Larger grids are thinned to at most MOST_VOXELS along an axis: this view gives an overview, it is
// not measured in. Without WebGL2 there is no 3-D view; everything else works.

const MOST_VOXELS = 256;
const ROOM = 2; // voxels around the mask
const REDRAW_MS = 300; // after the last stroke
const CROSSHAIR_MS = 120; // after the crosshair's last step
const SLOW_MS = 250; // a picture that takes longer was made without a graphics card
const COARSE_RATIO = 0.5; // pixels of the picture for each one of the screen, then
const SCAN_OPACITY = 0.35;
const VIEWS = { front: [180, 0], side: [270, 0], top: [180, 90] }; // azimuth and elevation in degrees; the face first

class Render3d {
  constructor(app) {
    Object.assign(this, { app, nv: null, timer: null, queue: Promise.resolve() });
    this.root = document.getElementById("pane-3d");
    this.note = document.getElementById("stage-note");
    for (const button of this.root.querySelectorAll("[data-turn]"))
      button.addEventListener("click", () => this.turnTo(...VIEWS[button.dataset.turn]));
  }

  // Start NiiVue. Whether the browser can.
  async start() {
    const canvas = document.getElementById("stage-canvas");
    try {
      if (typeof niivue === "undefined") throw new Error("NiiVue is missing");
      const probe = document.createElement("canvas").getContext("webgl2");
      if (!probe) throw new Error("no WebGL2");
      const ratio = isSoftware(probe) ? COARSE_RATIO : Math.min(window.devicePixelRatio || 1, 1.5);
      probe.getExtension("WEBGL_lose_context")?.loseContext(); // browsers allow only some at a time
      this.nv = new niivue.Niivue({
        backColor: [0, 0, 0, 1],
        dragAndDropEnabled: false,
        forceDevicePixelRatio: ratio,
        isOrientCube: true,
        loadingText: "",
        logLevel: "error",
        show3Dcrosshair: true,
        crosshairColor: [0.62, 0.82, 1, 0.7],
        crosshairWidth: 0.4,
      });
      await this.nv.attachToCanvas(canvas, false);
      this.nv.setSliceType(this.nv.sliceTypeRender);
      canvas.tabIndex = -1; // the pane around it takes the focus and the keys
      this.turnTo(...VIEWS.front);
      return true;
    } catch (error) {
      console.warn("3-D view:", error);
      this.nv = null;
      document.getElementById("stage").hidden = true;
      for (const control of this.root.querySelectorAll(".bar button[data-turn], .bar input")) control.disabled = true;
      const why = typeof niivue === "undefined" ? "this page was made without NiiVue" : "this browser offers no WebGL2";
      this.note.textContent = `No 3-D view: ${why}. Slices, drawing and decisions work.`;
      return false;
    }
  }

  get visible() {
    return this.nv && this.root.clientHeight > 0 && this.app.kind !== "frames";
  }

  // Show what the mask is now, soon: a stroke in progress is not waited for.
  refresh() {
    if (!this.visible || !this.app.grid) return;
    const { app } = this;
    const wanted = [app.caseNumber, app.maskVersion, app.view.scan3d, app.view.scan3d && [app.view.low, app.view.high]].join();
    const place = app.cursor.join();
    if (wanted === this.wanted && place === this.at) return;
    const anew = wanted !== this.wanted;
    Object.assign(this, { wanted, at: place });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.queue = this.queue.then(() => (anew || this.built !== this.wanted ? this.build() : this.draw()));
    }, anew ? REDRAW_MS : CROSSHAIR_MS);
  }

  async build() {
    const { app, nv, wanted } = this;
    if (!app.mask) return;
    // NiiVue would draw after each step; one picture at the end is enough.
    nv.drawScene = () => {};
    try {
      for (const volume of [...nv.volumes]) nv.removeVolume(volume);
      const whole = app.view.scan3d ? app.grid.shape.map((size) => [0, size - 1]) : boxOfMask(app.grid, app.mask);
      this.note.textContent = whole ? "" : "The mask is empty.";
      const small = whole && thinned(app.grid, whole);
      if (app.view.scan3d) await this.add(byteNifti(this.scanBytes(small), small.shape, small.affine), "gray", SCAN_OPACITY);
      for (const label of small ? labelsOf(app.mask).filter((label) => !app.hidden.has(label)) : []) {
        const solid = new Uint8Array(small.count);
        small.each((from, to) => {
          if (app.mask[from] === label) solid[to] = 255;
        });
        const [red, green, blue] = rgbOf(classColour(label));
        const name = `medseg${label}`;
        nv.addColormap(name, { R: [0, red, red], G: [0, green, green], B: [0, blue, blue], A: [0, 60, 255], I: [0, 90, 255] });
        await this.add(byteNifti(blurred(solid, small.shape), small.shape, small.affine), name, 1);
      }
      nv.updateGLVolume();
    } finally {
      delete nv.drawScene;
    }
    this.built = wanted;
    this.draw();
  }

  async add(bytes, colormap, opacity) {
    await this.nv.loadFromArrayBuffer(bytes.buffer, "volume.nii");
    const volume = this.nv.volumes[this.nv.volumes.length - 1];
    Object.assign(volume, { cal_min: 40, cal_max: 255, opacity });
    volume.setColormap(colormap);
  }

  draw() {
    const { nv, app } = this;
    if (!app.grid || !nv.volumes.length) return nv.drawScene();
    nv.scene.crosshairPos = nv.mm2frac(toMm(app.grid, app.cursor), 0, true);
    const begin = performance.now();
    nv.drawScene();
    nv.gl.readPixels(0, 0, 1, 1, nv.gl.RGBA, nv.gl.UNSIGNED_BYTE, new Uint8Array(4)); // waits for the picture
    if (performance.now() - begin > SLOW_MS && nv.opts.forceDevicePixelRatio !== COARSE_RATIO) {
      nv.opts.forceDevicePixelRatio = COARSE_RATIO;
      nv.resizeListener();
    }
  }

  scanBytes(small) {
    const { image, view } = this.app;
    const bytes = new Uint8Array(small.count);
    const gain = 255 / Math.max(view.high - view.low, 1e-9);
    small.each((from, to) => {
      bytes[to] = Math.min(Math.max((image.voxels[from] * image.slope + image.inter - view.low) * gain, 0), 255);
    });
    return bytes;
  }

  turnTo(azimuth, elevation) {
    this.nv?.setRenderAzimuthElevation(azimuth, elevation);
  }

  turnBy(azimuth, elevation) {
    if (this.nv) this.turnTo(this.nv.scene.renderAzimuth + azimuth, this.nv.scene.renderElevation + elevation);
  }
}

// Whether pictures are made without a graphics card.
function isSoftware(gl) {
  const names = gl.getExtension("WEBGL_debug_renderer_info");
  const name = gl.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

// First and last index of the mask along each axis, with some room around; null where there is no mask.
function boxOfMask(grid, mask) {
  const box = grid.shape.map((size) => [size, -1]);
  for (let k = 0, n = 0; k < grid.shape[2]; k++)
    for (let j = 0; j < grid.shape[1]; j++)
      for (let i = 0; i < grid.shape[0]; i++, n++) {
        if (!mask[n]) continue;
        const ijk = [i, j, k];
        for (let axis = 0; axis < 3; axis++) {
          if (ijk[axis] < box[axis][0]) box[axis][0] = ijk[axis];
          if (ijk[axis] > box[axis][1]) box[axis][1] = ijk[axis];
        }
      }
  if (box[0][1] < 0) return null;
  return box.map(([low, high], axis) => [Math.max(low - ROOM, 0), Math.min(high + ROOM, grid.shape[axis] - 1)]);
}

const labelsOf = (mask) => [...countLabels(mask).entries()].filter(([label, count]) => label && count).map(([label]) => label);

// A part of a grid, of every n-th voxel along each axis. `each` gives the index of a voxel, and of its place in the part.
function thinned(grid, box) {
  const sizes = box.map(([low, high]) => high - low + 1);
  const steps = sizes.map((size) => Math.ceil(size / MOST_VOXELS));
  const shape = sizes.map((size, axis) => Math.ceil(size / steps[axis]));
  const origin = toMm(grid, box.map(([low]) => low));
  const affine = grid.affine.map((row, n) => [...[0, 1, 2].map((axis) => row[axis] * steps[axis]), origin[n]]);
  const each = (take) => {
    let to = 0;
    for (let k = box[2][0]; k <= box[2][1]; k += steps[2])
      for (let j = box[1][0]; j <= box[1][1]; j += steps[1])
        for (let i = box[0][0]; i <= box[0][1]; i += steps[0]) take(i + j * grid.strides[1] + k * grid.strides[2], to++);
  };
  return { shape, affine, each, count: shape[0] * shape[1] * shape[2] };
}

// The mean over a voxel and its six neighbours, the voxel itself counted three times: thin vessels stay.
function blurred(voxels, shape) {
  const smooth = new Uint8Array(voxels.length);
  const [step, layer] = [shape[0], shape[0] * shape[1]];
  for (let n = 0; n < voxels.length; n++) {
    const around =
      (voxels[n - 1] | 0) + (voxels[n + 1] | 0) + (voxels[n - step] | 0) + (voxels[n + step] | 0) +
      (voxels[n - layer] | 0) + (voxels[n + layer] | 0);
    if (around || voxels[n]) smooth[n] = (3 * voxels[n] + around) / 9;
  }
  return smooth;
}
