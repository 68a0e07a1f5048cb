// This file draws patches, the clusters over them, and the cross of a place.

const VEIL = 0.5; // share of a cluster's colour over the picture
const DRAWN_SIDE = 224; // pixels: twice the width of a strip's pictures, for sharp screens

const rgbOf = (colour) => [1, 3, 5].map((n) => parseInt(colour.slice(n, n + 2), 16));

class Pictures {
  constructor(data, codes) {
    const { shape, bytes } = data.images;
    [, this.height, this.width, this.channels] = shape;
    Object.assign(this, { codes, values: fromBase64(bytes), inside: fromBase64(data.inside) });
    this.scale = Math.max(1, Math.round(DRAWN_SIDE / Math.max(this.width, this.height)));
    this.sheet = element("canvas", { width: this.width, height: this.height });
    this.waiting = new Map(); // canvas: how it is drawn
    this.watch = new IntersectionObserver((entries) => entries.filter(({ isIntersecting }) => isIntersecting).forEach(({ target }) => this.drawNow(target)), { rootMargin: "300px" });
  }

  // Draw a canvas once it comes into sight: a moved slider need not wait for hundreds of them.
  draw(canvas, ...how) {
    Object.assign(canvas, { width: this.width * this.scale, height: this.height * this.scale });
    this.waiting.set(canvas, how);
    this.watch.unobserve(canvas);
    this.watch.observe(canvas);
  }

  drawNow(canvas) {
    this.watch.unobserve(canvas);
    if (this.waiting.has(canvas)) this.paint(canvas, ...this.waiting.get(canvas));
    this.waiting.delete(canvas);
  }

  // Forget what is no longer on the page.
  clear() {
    this.waiting.clear();
    this.watch.disconnect();
  }

  // A patch as a canvas. `colours`: by cluster, null where a cluster stays grey; null: all of them. `cell`: of the cross.
  paint(canvas, patch, found, colours, cell = null) {
    const { width, height, channels, codes, sheet } = this;
    const brush = sheet.getContext("2d", { willReadFrequently: true });
    const image = brush.createImageData(width, height);
    const veils = colours?.map((colour) => colour && rgbOf(colour));
    for (let y = 0; y < height; y++) {
      const row = Math.floor((y * codes.height) / height);
      for (let x = 0; x < width; x++) {
        const pixel = y * width + x;
        const place = patch * codes.cells + row * codes.width + Math.floor((x * codes.width) / width);
        const veil = veils && this.inside[place] ? veils[found.cluster[place]] : null;
        for (let n = 0; n < 3; n++) {
          const grey = this.values[(patch * width * height + pixel) * channels + (channels === 3 ? n : 0)];
          image.data[4 * pixel + n] = veil ? grey * (1 - VEIL) + veil[n] * VEIL : grey;
        }
        image.data[4 * pixel + 3] = 255;
      }
    }
    brush.putImageData(image, 0, 0);
    const screen = canvas.getContext("2d");
    screen.imageSmoothingQuality = "high";
    screen.drawImage(sheet, 0, 0, canvas.width, canvas.height);
    if (cell !== null) this.drawCross(screen, canvas, cell);
  }

  // White on black, open in the middle, so that the place itself is seen.
  drawCross(brush, canvas, cell) {
    const x = ((cell % this.codes.width) + 0.5) * (canvas.width / this.codes.width);
    const y = (Math.floor(cell / this.codes.width) + 0.5) * (canvas.height / this.codes.height);
    const [gap, arm] = [canvas.width / 28, canvas.width / 9];
    for (const [colour, width] of [["#000", 7], ["#fff", 3.5]]) {
      brush.strokeStyle = colour;
      brush.lineWidth = width;
      brush.beginPath();
      for (const [across, down] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        brush.moveTo(x + across * gap, y + down * gap);
        brush.lineTo(x + across * arm, y + down * arm);
      }
      brush.stroke();
    }
  }

  // The cell under a point of a canvas in the window.
  cellAt(canvas, x, y) {
    const box = canvas.getBoundingClientRect();
    const along = (share, count) => Math.min(Math.max(Math.floor(share * count), 0), count - 1);
    const row = along((y - box.top) / box.height, this.codes.height);
    return row * this.codes.width + along((x - box.left) / box.width, this.codes.width);
  }
}
