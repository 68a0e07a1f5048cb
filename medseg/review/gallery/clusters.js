// This file assigns places to clusters, as `places.py` does: to the nearest prototype, by the squared distance of codes.
//
// Of every place it keeps its cluster, the next one, the distance to its prototype, and the *margin*: how much farther
// the next prototype is. Places of all patches follow each other.

class Codes {
  constructor({ shape, low, step, bytes }) {
    [this.patches, this.channels, this.height, this.width] = shape;
    Object.assign(this, { low, step, values: fromBase64(bytes) });
    this.cells = this.height * this.width;
  }

  assign(prototypes) {
    const { patches, channels, cells, values, low, step } = this;
    const count = patches * cells;
    const found = { cluster: new Uint8Array(count), next: new Uint8Array(count), distance: new Float64Array(count), margin: new Float64Array(count) };
    const second = found.margin; // until the end
    found.distance.fill(Infinity);
    second.fill(Infinity);
    const sum = new Float64Array(cells);
    for (let patch = 0; patch < patches; patch++) {
      for (let k = 0; k < prototypes.length; k++) {
        sum.fill(0);
        for (let channel = 0; channel < channels; channel++) {
          const start = (patch * channels + channel) * cells;
          const [first, by, centre] = [low[channel], step[channel], prototypes[k][channel]];
          for (let cell = 0; cell < cells; cell++) {
            const apart = first + by * values[start + cell] - centre;
            sum[cell] += apart * apart;
          }
        }
        for (let cell = 0, place = patch * cells; cell < cells; cell++, place++) {
          if (sum[cell] < found.distance[place]) {
            second[place] = found.distance[place];
            found.next[place] = found.cluster[place];
            found.distance[place] = sum[cell];
            found.cluster[place] = k;
          } else if (sum[cell] < second[place]) {
            second[place] = sum[cell];
            found.next[place] = k;
          }
        }
      }
    }
    for (let place = 0; place < count; place++) second[place] -= found.distance[place];
    return found;
  }
}

// The places of a cluster with the least values (distance or margin): [{patch, cell, next}]. Each patch gives its best
// one, unless a better one of the same slice lies close to it.
function bestPlaces(data, codes, found, inside, cluster, by) {
  const best = [];
  for (let patch = 0; patch < codes.patches; patch++) {
    let least = -1;
    for (let place = patch * codes.cells; place < (patch + 1) * codes.cells; place++)
      if (found.cluster[place] === cluster && inside[place] && (least < 0 || by[place] < by[least])) least = place;
    if (least >= 0) best.push({ patch, cell: least - patch * codes.cells, next: found.next[least], value: by[least] });
  }
  const chosen = [];
  for (const place of best.sort((one, other) => one.value - other.value)) {
    if (chosen.length === data.strip) break;
    if (!chosen.some((other) => areClose(data, place, other))) chosen.push(place);
  }
  return chosen;
}

// How many patches show a cluster.
function patchesWith(codes, found, inside, cluster) {
  let count = 0;
  for (let patch = 0; patch < codes.patches; patch++)
    for (let place = patch * codes.cells; place < (patch + 1) * codes.cells; place++)
      if (found.cluster[place] === cluster && inside[place]) {
        count += 1;
        break;
      }
  return count;
}
