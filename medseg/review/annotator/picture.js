// This file draws a slice with its grid.
//
// Ticked cells have a border, a veil and a filled corner: colour alone tells nothing, and no sign may hide a vessel.

const TICKED = "#ffb454";
const SCREEN_LEVELS = 255;

// A slice in a window, one pixel a voxel, as a canvas.
function sliceCanvas(stack, geometry, n, low, high) {
  const [width, height] = geometry.pixels;
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const brush = canvas.getContext("2d");
  const picture = brush.createImageData(width, height);
  const [rows, columns] = geometry.info.size;
  const stored = [0, 0];
  for (let y = 0; y < height; y++) {
    stored[geometry.axes[1]] = geometry.stored(1, y);
    for (let x = 0; x < width; x++) {
      stored[geometry.axes[0]] = geometry.stored(0, x);
      const raw = stack.voxels[stored[0] + rows * (stored[1] + columns * n)];
      const grey = ((raw * stack.slope + stack.inter - low) / (high - low)) * SCREEN_LEVELS;
      picture.data.fill(grey, 4 * (y * width + x), 4 * (y * width + x) + 3); // cut off to 0 and 255
      picture.data[4 * (y * width + x) + 3] = 255;
    }
  }
  brush.putImageData(picture, 0, 0);
  return canvas;
}

class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.brush = canvas.getContext("2d");
  }

  // Where the picture lies on the canvas, in pixels of the page: as large as fits, in its true shape.
  frame(geometry) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const [across, down] = geometry.extent;
    const scale = Math.min(width / across, height / down);
    return { left: (width - across * scale) / 2, top: (height - down * scale) / 2, width: across * scale, height: down * scale };
  }

  // The cell under a point of the window; Null beside the picture.
  placeAt(geometry, x, y) {
    const box = this.canvas.getBoundingClientRect();
    const frame = this.frame(geometry);
    return geometry.placeAt([(x - box.left - frame.left) / frame.width, (y - box.top - frame.top) / frame.height]);
  }

  // Middle of a cell in the window, and its size.
  boxOf(geometry, place) {
    const outer = this.canvas.getBoundingClientRect();
    const frame = this.frame(geometry);
    const [left, top, width, height] = geometry.box(place);
    return {
      x: outer.left + frame.left + (left + width / 2) * frame.width,
      y: outer.top + frame.top + (top + height / 2) * frame.height,
      width: width * frame.width,
      height: height * frame.height,
    };
  }

  draw({ geometry, slice, sheet, cursor, lines }) {
    const { canvas, brush } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    brush.setTransform(1, 0, 0, 1, 0, 0);
    brush.clearRect(0, 0, width, height);
    brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    const frame = this.frame(geometry);
    brush.imageSmoothingQuality = "high";
    brush.drawImage(slice, frame.left, frame.top, frame.width, frame.height);
    const onScreen = (place) => {
      const [left, top, w, h] = geometry.box(place);
      return [frame.left + left * frame.width, frame.top + top * frame.height, w * frame.width, h * frame.height];
    };
    if (lines) this.drawLines(geometry, onScreen);
    for (const name of sheet.ticked) this.drawTick(...onScreen(placeOf(name)));
    if (cursor) this.drawCursor(...onScreen(cursor));
    this.drawLetters(frame, sheet.state);
  }

  drawLines(geometry, onScreen) {
    const { brush } = this;
    brush.strokeStyle = "rgba(200, 220, 255, 0.22)";
    brush.lineWidth = 1;
    brush.beginPath();
    for (let row = 0; row < geometry.limits[0]; row++)
      for (let column = 0; column < geometry.limits[1]; column++) {
        const [left, top, width, height] = onScreen([row, column]);
        brush.rect(Math.round(left) + 0.5, Math.round(top) + 0.5, Math.round(width), Math.round(height));
      }
    brush.stroke();
  }

  drawTick(left, top, width, height) {
    const { brush } = this;
    brush.fillStyle = "rgba(255, 180, 84, 0.09)";
    brush.fillRect(left, top, width, height);
    brush.strokeStyle = TICKED;
    brush.lineWidth = 2;
    brush.strokeRect(left + 1.5, top + 1.5, width - 3, height - 3);
    const size = Math.min(width, height, 36) * 0.22;
    brush.fillStyle = TICKED;
    brush.beginPath();
    brush.moveTo(left + 1, top + 1);
    brush.lineTo(left + 1 + size, top + 1);
    brush.lineTo(left + 1, top + 1 + size);
    brush.fill();
  }

  drawCursor(left, top, width, height) {
    const { brush } = this;
    brush.lineWidth = 3;
    brush.strokeStyle = "#000";
    brush.strokeRect(left + 0.5, top + 0.5, width - 1, height - 1);
    brush.lineWidth = 1.5;
    brush.strokeStyle = "#fff";
    brush.setLineDash([5, 3]);
    brush.strokeRect(left + 0.5, top + 0.5, width - 1, height - 1);
    brush.setLineDash([]);
  }

  drawLetters(frame, state) {
    const { brush } = this;
    brush.font = "600 14px system-ui, sans-serif";
    brush.textBaseline = "middle";
    const write = (text, x, y, align) => {
      brush.textAlign = align;
      brush.lineWidth = 4;
      brush.strokeStyle = "#000";
      brush.strokeText(text, x, y);
      brush.fillStyle = "#fff";
      brush.fillText(text, x, y);
    };
    write("R", frame.left + 6, frame.top + frame.height / 2, "left");
    write("L", frame.left + frame.width - 6, frame.top + frame.height / 2, "right");
    write("A", frame.left + frame.width / 2, frame.top + 12, "center");
    write("P", frame.left + frame.width / 2, frame.top + frame.height - 12, "center");
    const said = { none: "✕ No vessel in this slice", done: "✓ All vessels of this slice are ticked" }[state];
    if (said) write(said, frame.left + 8, frame.top + frame.height - 14, "left");
  }
}
