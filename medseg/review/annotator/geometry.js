// This file takes cells of the stored grid to places on the screen and back.
//
// A *place* is [row, column] of a cell along the two stored axes of a slice. The screen has the axes *across* and *down*;
// each is one of the stored axes, perhaps mirrored. Shares run from 0 to 1 over the whole picture.

class Geometry {
  constructor(info, cell) {
    this.info = info;
    this.cell = cell;
    this.axes = info.across === 0 ? [0, 1] : [1, 0]; // stored axis of across, of down
    this.limits = info.size.map((length) => Math.ceil(length / cell));
  }

  // Width by height of the picture in mm.
  get extent() {
    return this.axes.map((axis) => this.info.size[axis] * this.info.spacing[axis]);
  }

  // Voxels across and down.
  get pixels() {
    return this.axes.map((axis) => this.info.size[axis]);
  }

  // Stored index of a pixel along one screen axis.
  stored(screen, pixel) {
    const length = this.info.size[this.axes[screen]];
    return this.info.mirrored[screen] ? length - 1 - pixel : pixel;
  }

  // Left, top, width and height of a cell as shares.
  box(place) {
    const ends = [0, 1].map((screen) => {
      const axis = this.axes[screen];
      const length = this.info.size[axis];
      const first = (place[axis] * this.cell) / length;
      const last = Math.min((place[axis] + 1) * this.cell, length) / length;
      return this.info.mirrored[screen] ? [1 - last, 1 - first] : [first, last];
    });
    return [ends[0][0], ends[1][0], ends[0][1] - ends[0][0], ends[1][1] - ends[1][0]];
  }

  // The cell at shares of the picture, or null beside it.
  placeAt(shares) {
    const place = [0, 0];
    for (const screen of [0, 1]) {
      const axis = this.axes[screen];
      const share = this.info.mirrored[screen] ? 1 - shares[screen] : shares[screen];
      const voxel = Math.floor(share * this.info.size[axis]);
      if (voxel < 0 || voxel >= this.info.size[axis]) return null;
      place[axis] = Math.floor(voxel / this.cell);
    }
    return place;
  }

  // The cell beside another one on the screen; at the border the same one.
  moved(place, across, down) {
    const next = [...place];
    [across, down].forEach((step, screen) => {
      const axis = this.axes[screen];
      const number = next[axis] + (this.info.mirrored[screen] ? -step : step);
      next[axis] = Math.max(0, Math.min(this.limits[axis] - 1, number));
    });
    return next;
  }
}
