// This file reads and writes the NIfTI files of the page: base64, gzip, header, voxels.
//
// The *head* of a file is all before its voxels: header and extensions. A *raw* value is a voxel as stored; its value
// is raw * slope + inter. An *affine* is three rows of four numbers that take voxel indices i j k to mm, RAS+.
const VOXEL_TYPES = {
  2: Uint8Array,
  4: Int16Array,
  8: Int32Array,
  16: Float32Array,
  64: Float64Array,
  256: Int8Array,
  512: Uint16Array,
  768: Uint32Array,
};
const MM_PER_UNIT = { 1: 1000, 2: 1, 3: 0.001 };

// Where the fields of the two kinds of header lie, and the type of each.
const NIFTI1 = {
  size: 348, dim: 40, dimStep: 2, datatype: 70, pixdim: 76, offset: 108, slope: 112, inter: 116, units: 123,
  qcode: 252, scode: 254, quatern: 256, srow: 280, real: 4, code: 2,
};
const NIFTI2 = {
  size: 540, dim: 16, dimStep: 8, datatype: 12, pixdim: 104, offset: 168, slope: 176, inter: 184, units: 500,
  qcode: 344, scode: 348, quatern: 352, srow: 400, real: 8, code: 4,
};

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let n = 0; n < bytes.length; n++) bytes[n] = letters.charCodeAt(n);
  return bytes;
}

async function throughStream(bytes, stream) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

const gunzip = (bytes) => throughStream(bytes, new DecompressionStream("gzip"));
const gzip = (bytes) => throughStream(bytes, new CompressionStream("gzip"));

// Parts of a file: {head, shape, affine, voxels, slope, inter}.
function readNifti(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const small = [348, 540].find((size) => [true, false].some((end) => view.getInt32(0, end) === size));
  if (!small) throw new Error("not a NIfTI file");
  const at = small === 348 ? NIFTI1 : NIFTI2;
  const little = view.getInt32(0, true) === small;
  const real = (place) => (at.real === 4 ? view.getFloat32(place, little) : view.getFloat64(place, little));
  const code = (place) => (at.code === 2 ? view.getInt16(place, little) : view.getInt32(place, little));
  const dim = (n) => {
    const place = at.dim + n * at.dimStep;
    return at.dimStep === 2 ? view.getInt16(place, little) : Number(view.getBigInt64(place, little));
  };
  const shape = [1, 2, 3].map((n) => (n <= dim(0) ? Math.max(dim(n), 1) : 1));
  const offset = at === NIFTI1 ? real(at.offset) : Number(view.getBigInt64(at.offset, little));
  const Voxels = VOXEL_TYPES[view.getInt16(at.datatype, little)];
  if (!Voxels) throw new Error(`values of type ${view.getInt16(at.datatype, little)} cannot be shown`);
  const count = shape[0] * shape[1] * shape[2];
  const stored = bytes.slice(offset, offset + count * Voxels.BYTES_PER_ELEMENT);
  if (stored.length < count * Voxels.BYTES_PER_ELEMENT) throw new Error("the file is cut short");
  if (!little) swapBytes(stored, Voxels.BYTES_PER_ELEMENT);
  const slope = real(at.slope);
  const scaled = Number.isFinite(slope) && slope !== 0;
  const unit = MM_PER_UNIT[(at === NIFTI1 ? view.getUint8(at.units) : view.getInt32(at.units, little)) & 7] ?? 1;
  const affine = bestAffine(at, real, code, shape).map((row) => row.map((number) => number * unit));
  return {
    head: bytes.slice(0, offset),
    shape,
    affine,
    voxels: new Voxels(stored.buffer),
    slope: scaled ? slope : 1,
    inter: scaled ? real(at.inter) || 0 : 0,
  };
}

// The original head with other voxels of one byte each: the grid stays bit for bit.
function withVoxels(head, voxels) {
  const bytes = new Uint8Array(head.length + voxels.length);
  bytes.set(head);
  bytes.set(voxels, head.length);
  return bytes;
}

// A NIfTI-1 file of bytes on a grid, for the 3-D view.
function byteNifti(voxels, shape, affine) {
  const head = new Uint8Array(352);
  const view = new DataView(head.buffer);
  view.setInt32(0, 348, true);
  [3, ...shape, 1, 1, 1, 1].forEach((size, n) => view.setInt16(NIFTI1.dim + 2 * n, size, true));
  view.setInt16(NIFTI1.datatype, 2, true);
  view.setInt16(NIFTI1.datatype + 2, 8, true);
  const spacing = [0, 1, 2].map((n) => Math.hypot(...affine.map((row) => row[n])));
  [1, ...spacing].forEach((size, n) => view.setFloat32(NIFTI1.pixdim + 4 * n, size, true));
  view.setFloat32(NIFTI1.offset, 352, true);
  view.setFloat32(NIFTI1.slope, 1, true);
  view.setUint8(NIFTI1.units, 2);
  view.setInt16(NIFTI1.scode, 1, true);
  affine.flat().forEach((number, n) => view.setFloat32(NIFTI1.srow + 4 * n, number, true));
  head.set([0x6e, 0x2b, 0x31], 344); // "n+1"
  return withVoxels(head, voxels);
}

// The sform where its code says so, else the qform, else the voxel size alone: as the rest of medseg reads it.
function bestAffine(at, real, code, shape) {
  const numbers = (place, count) => Array.from({ length: count }, (_, n) => real(place + n * at.real));
  if (code(at.scode) > 0) return [0, 1, 2].map((row) => numbers(at.srow + row * 4 * at.real, 4));
  const [qfac, ...pixdim] = numbers(at.pixdim, 4);
  if (code(at.qcode) > 0) {
    const [b, c, d, ...origin] = numbers(at.quatern, 6);
    const a = Math.sqrt(Math.max(0, 1 - (b * b + c * c + d * d)));
    const turn = [
      [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
      [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
      [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    const sizes = [pixdim[0], pixdim[1], pixdim[2] * (qfac < 0 ? -1 : 1)];
    return turn.map((row, n) => [...row.map((number, axis) => number * sizes[axis]), origin[n]]);
  }
  const sizes = [-pixdim[0], pixdim[1], pixdim[2]];
  return sizes.map((size, n) => [0, 1, 2].map((axis) => (axis === n ? size : 0)).concat((-size * (shape[n] - 1)) / 2));
}

function swapBytes(bytes, width) {
  for (let start = 0; start < bytes.length; start += width) bytes.subarray(start, start + width).reverse();
}
