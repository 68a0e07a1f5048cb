// This file knows where voxels lie in the body and on the screen.
//
// A *grid* is shape, affine and what follows from them. A *plane* (axial, coronal, sagittal) is a set of slices across
// one voxel axis, its *normal*: the one nearest to the body's axis, so that every slice is one of the scan's own, without
// interpolation. Planes stand in radiological convention: the patient's right is on the left of the screen, and in the
// sagittal plane anterior is on the left. So to the right of the screen and downwards, R, A and S always decrease.

const LETTERS = {
  axial: { left: "R", right: "L", top: "A", bottom: "P" },
  coronal: { left: "R", right: "L", top: "S", bottom: "I" },
  sagittal: { left: "A", right: "P", top: "S", bottom: "I" },
};
// World axes (0 left-right, 1 front-back, 2 head-foot) along the screen's width, its height, and across the plane.
const PLANE_AXES = { axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0] };
const NOTEWORTHY_TILT_DEG = 5; // below it, "axial" needs no remark

function makeGrid(shape, affine) {
  const spacing = [0, 1, 2].map((axis) => Math.hypot(...affine.map((row) => row[axis])));
  return {
    shape,
    affine,
    spacing,
    inverse: inverted(affine),
    strides: [1, shape[0], shape[0] * shape[1]],
    count: shape[0] * shape[1] * shape[2],
    voxelVolume: Math.abs(determinant(affine)),
  };
}

const toMm = (grid, ijk) =>
  grid.affine.map((row) => row[0] * ijk[0] + row[1] * ijk[1] + row[2] * ijk[2] + row[3]);

function toVoxel(grid, mm) {
  const moved = mm.map((number, n) => number - grid.affine[n][3]);
  return grid.inverse.map((row) => row[0] * moved[0] + row[1] * moved[1] + row[2] * moved[2]);
}

const voxelIndex = (grid, ijk) => ijk[0] + ijk[1] * grid.strides[1] + ijk[2] * grid.strides[2];
const isInside = (grid, ijk) => ijk.every((index, axis) => index >= 0 && index < grid.shape[axis]);
const clampTo = (grid, ijk) => ijk.map((index, axis) => Math.min(Math.max(Math.round(index), 0), grid.shape[axis] - 1));

// For each world axis the voxel axis that runs most along it, each used once.
function voxelAxes(grid) {
  const along = (world, axis) => Math.abs(grid.affine[world][axis]) / grid.spacing[axis];
  const orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
  const sums = orders.map((order) => order.reduce((sum, axis, world) => sum + along(world, axis), 0));
  return orders[sums.indexOf(Math.max(...sums))];
}

// How a plane cuts the grid: voxel axes u and v along the screen's width and height, and the normal.
function planeOf(grid, name) {
  const axes = voxelAxes(grid);
  const [u, v, normal] = PLANE_AXES[name].map((world) => axes[world]);
  const rises = (place) => grid.affine[PLANE_AXES[name][place]][[u, v, normal][place]] > 0;
  const across = PLANE_AXES[name][2];
  const cosine = Math.abs(grid.affine[across][normal]) / grid.spacing[normal];
  return {
    name,
    u,
    v,
    normal,
    flipU: rises(0),
    flipV: rises(1),
    upwards: rises(2) ? 1 : -1, // the step of the index towards R, A or S
    tiltDeg: (Math.acos(Math.min(cosine, 1)) * 180) / Math.PI,
  };
}

// Position on the plane in voxels from its top left corner, for a voxel (centres lie at halves); and back.
function toPlane(grid, plane, ijk) {
  const [x, y] = [ijk[plane.u] + 0.5, ijk[plane.v] + 0.5];
  return [plane.flipU ? grid.shape[plane.u] - x : x, plane.flipV ? grid.shape[plane.v] - y : y];
}

function fromPlane(grid, plane, xy, slice) {
  const ijk = [0, 0, 0];
  ijk[plane.u] = (plane.flipU ? grid.shape[plane.u] - xy[0] : xy[0]) - 0.5;
  ijk[plane.v] = (plane.flipV ? grid.shape[plane.v] - xy[1] : xy[1]) - 0.5;
  ijk[plane.normal] = slice;
  return ijk;
}

const distanceMm = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);

function determinant(m) {
  return (
    m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) -
    m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
    m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
  );
}

function inverted(m) {
  const whole = determinant(m);
  const cofactor = (row, column) => {
    const [a, b] = [0, 1, 2].filter((n) => n !== row);
    const [c, d] = [0, 1, 2].filter((n) => n !== column);
    return ((row + column) % 2 ? -1 : 1) * (m[a][c] * m[b][d] - m[a][d] * m[b][c]);
  };
  return [0, 1, 2].map((row) => [0, 1, 2].map((column) => cofactor(column, row) / whole));
}
