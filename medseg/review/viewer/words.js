// This file says places, lengths, volumes and values in words.

function placeInWords(app, mm) {
  if (app.kind === "frames" && app.grid) {
    const ijk = toVoxel(app.grid, mm);
    const [column, row] = toPlane(app.grid, app.planes[0].cut, ijk);
    return `column ${Math.floor(column) + 1}, row ${Math.floor(row) + 1}, frame ${Math.round(ijk[2]) + 1}`;
  }
  if (!app.grid) return mm.map((number) => number.toFixed(1)).join(", ");
  const sides = [["R", "L"], ["A", "P"], ["S", "I"]];
  return `${mm.map((number, n) => `${sides[n][number < 0 ? 1 : 0]} ${Math.abs(number).toFixed(1)}`).join(", ")} mm`;
}

function lengthInWords(app, length) {
  return app.unit === "px" ? `${length.toFixed(0)} px` : `${length.toFixed(1)} mm`;
}

function volumeInWords(app, count) {
  const voxels = `${count} ${app.unit === "px" ? "pixel" : "voxel"}${count === 1 ? "" : "s"}`;
  return app.grid && app.unit === "mm" ? `${voxels} (${((count * app.grid.voxelVolume) / 1000).toPrecision(2)} ml)` : voxels;
}

function valueAt(app, ijk) {
  return app.image.voxels[voxelIndex(app.grid, ijk)] * app.image.slope + app.image.inter;
}

function classAt(app, ijk) {
  const label = app.mask[voxelIndex(app.grid, ijk)];
  const layer = app.layers[app.view.layer];
  const value = layer ? `, ${app.view.layer} ${(layer.voxels[voxelIndex(app.grid, ijk)] * layer.slope + layer.inter).toFixed(2)}` : "";
  return `${label ? `, ${className(app, label)}` : ""}${value}`;
}

function className(app, label) {
  return app.data.classes.find(({ value }) => value === label)?.name ?? (label ? `class ${label}` : "background");
}
