// This file finds the voxels that a drawing tool changes. Its functions change nothing themselves.
//
// A *label* is the value of a voxel: 0 background, else a class. Voxels are named by their index in the file's order.
// A *component* is a set of voxels of one label that touch, also by edges and corners.

const NEAR_VOXELS = 3; // a click this close to a thin vessel means the vessel

// Voxels nearer than a radius in mm to a place in voxels, the nearest one always; within one slice when `plane` is given.
function ballAround(grid, centre, radius, plane) {
  const nearest = clampTo(grid, centre);
  const found = new Set([voxelIndex(grid, nearest)]);
  const reach = boxOf(grid, radius).map((size, axis) => (plane && axis === plane.normal ? 0 : size));
  const [low, high] = [-1, 1].map((sign) => clampTo(grid, nearest.map((index, axis) => index + sign * reach[axis])));
  for (let k = low[2]; k <= high[2]; k++)
    for (let j = low[1]; j <= high[1]; j++)
      for (let i = low[0]; i <= high[0]; i++) {
        const from = [i - centre[0], j - centre[1], k - centre[2]];
        if (plane) from[plane.normal] = 0;
        if (Math.hypot(...grid.affine.map((r) => r[0] * from[0] + r[1] * from[1] + r[2] * from[2])) <= radius)
          found.add(voxelIndex(grid, [i, j, k]));
      }
  return found;
}

// Half the voxel box that holds a ball: how far the index of each axis can move within the radius, in sheared grids too.
const boxOf = (grid, radius) => grid.inverse.map((row) => Math.ceil(radius * Math.hypot(...row)));

// Voxels that can be reached from a start over voxels of the same label. {indexes, open}: open when the grid's edge is met.
function connected(grid, voxels, start, { plane = null, corners = true } = {}) {
  const label = voxels[voxelIndex(grid, start)];
  const seen = new Uint8Array(grid.count);
  const steps = neighbours(plane, corners);
  const indexes = [voxelIndex(grid, start)];
  seen[indexes[0]] = 1;
  let open = false;
  for (let n = 0; n < indexes.length; n++) {
    const k = Math.floor(indexes[n] / grid.strides[2]);
    const j = Math.floor((indexes[n] - k * grid.strides[2]) / grid.strides[1]);
    const i = indexes[n] - k * grid.strides[2] - j * grid.strides[1];
    for (const step of steps) {
      const next = [i + step[0], j + step[1], k + step[2]];
      if (!isInside(grid, next)) {
        open = true;
        continue;
      }
      const index = voxelIndex(grid, next);
      if (seen[index] || voxels[index] !== label) continue;
      seen[index] = 1;
      indexes.push(index);
    }
  }
  return { indexes, open };
}

function neighbours(plane, corners) {
  const steps = [];
  for (let k = -1; k <= 1; k++)
    for (let j = -1; j <= 1; j++)
      for (let i = -1; i <= 1; i++) {
        const step = [i, j, k];
        const moved = Math.abs(i) + Math.abs(j) + Math.abs(k);
        if (moved && (corners || moved === 1) && !(plane && step[plane.normal])) steps.push(step);
      }
  return steps;
}

// The labelled voxel of the slice that is nearest to a place, or null when none is near.
function labelledNear(grid, voxels, place, plane) {
  let best = null;
  let least = NEAR_VOXELS + 0.5;
  for (let v = -NEAR_VOXELS; v <= NEAR_VOXELS; v++)
    for (let u = -NEAR_VOXELS; u <= NEAR_VOXELS; u++) {
      const ijk = [...place];
      ijk[plane.u] += u;
      ijk[plane.v] += v;
      if (!isInside(grid, ijk) || !voxels[voxelIndex(grid, ijk)] || Math.hypot(u, v) >= least) continue;
      [best, least] = [ijk, Math.hypot(u, v)];
    }
  return best;
}

// Volume of each label in voxels.
function countLabels(voxels) {
  const counts = new Array(256).fill(0);
  for (let n = 0; n < voxels.length; n++) counts[voxels[n]]++;
  return counts;
}
