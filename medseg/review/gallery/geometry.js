// This file says where a place of a patch lies.
//
// A *cell* is a place of a patch as it is shown, counted row by row from the top left. The *prepared grid* is what the
// run looked at: the scan turned to R, A, S, the picture in the size of the run, the sector as depths and rays.

// Slice, row and column of the middle of a cell on the prepared grid, from 0.
function storedPlace(data, patch, cell) {
  const [, , height, width] = data.codes.shape;
  const [y, x] = [Math.floor(cell / width), cell % width];
  const { turned, size } = data.geometry;
  const [row, rows, column, columns] = turned ? [width - 1 - x, width, height - 1 - y, height] : [y, height, x, width];
  const [slice, firstRow, firstColumn] = patch.location;
  return [slice, firstRow + Math.floor(((row + 0.5) * size) / rows), firstColumn + Math.floor(((column + 0.5) * size) / columns)];
}

function areClose(data, one, other) {
  const [first, second] = [data.patches[one.patch], data.patches[other.patch]];
  if (first.case !== second.case) return false;
  const there = storedPlace(data, second, other.cell);
  const [slices, ...steps] = storedPlace(data, first, one.cell).map((value, n) => Math.abs(value - there[n]));
  return slices === 0 && Math.max(...steps) < data.apart * data.geometry.size;
}

// Place in the unit of the patch; null where it is not known.
function positionOf(data, patch, cell) {
  if (!patch.affine || patch.unit === "sector") return null;
  const [slice, ...voxel] = storedPlace(data, patch, cell);
  voxel.splice(data.geometry.axis, 0, slice);
  return patch.affine.map((row) => row[3] + row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2]);
}

// The place in the words that `medseg name` takes, where it can be given.
function placeInWords(data, patch, cell) {
  const [slice, row, column] = storedPlace(data, patch, cell);
  const position = positionOf(data, patch, cell);
  const frame = patch.several ? `frame ${slice}, ` : "";
  if (patch.unit === "sector") return [`${frame}depth ${row}, ray ${column}`];
  if (patch.unit === "px" && position) return [`${frame}row ${Math.round(position[0])}, column ${Math.round(position[1])}`];
  if (patch.unit === "px") return [`${frame}row ${row}, column ${column}`];
  // Only mm can be given to `medseg name`: slice, row and column are those of the prepared grid.
  return [position ? `${position.map((value) => value.toFixed(1)).join(" ")} mm` : `slice ${slice}, row ${row}, column ${column}`];
}
