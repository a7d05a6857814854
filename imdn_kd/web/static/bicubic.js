/**
 * Rows of an image enlarged by MATLAB's bicubic (Keys, a = -1/2, edges mirrored), 8 bits.
 *
 * @param {{data: Uint8ClampedArray, width: number, height: number}} source four channels.
 * @param {number[]} channels those to enlarge, in this order.
 * @param {number} scale a whole number.
 * @param {number} from first row of the result.
 * @param {number} to row after the last one.
 * @returns {Uint8ClampedArray}
 */
export function bicubicRows(source, channels, scale, from, to) {
  const { data, width, height } = source;
  const wide = width * scale, count = channels.length;
  const across = taps(width, scale), down = taps(height, scale);
  const out = new Uint8ClampedArray((to - from) * wide * count);
  const sums = new Float32Array(width * count);
  const mixed = new Uint8ClampedArray(sums.length); // MATLAB rounds and clamps after each of the two directions
  for (let row = from; row < to; row++) {
    sums.fill(0);
    for (let tap = 0; tap < 4; tap++) {
      const weight = down.weights[4 * row + tap];
      const start = down.places[4 * row + tap] * width * 4;
      for (let x = 0, at = 0; x < width; x++)
        for (let c = 0; c < count; c++, at++) sums[at] += weight * data[start + 4 * x + channels[c]];
    }
    mixed.set(sums);
    let at = (row - from) * wide * count;
    for (let x = 0; x < wide; x++) {
      const { weights, places } = across;
      const w0 = weights[4 * x], w1 = weights[4 * x + 1], w2 = weights[4 * x + 2], w3 = weights[4 * x + 3];
      const p0 = places[4 * x] * count, p1 = places[4 * x + 1] * count;
      const p2 = places[4 * x + 2] * count, p3 = places[4 * x + 3] * count;
      for (let c = 0; c < count; c++)
        out[at++] = w0 * mixed[p0 + c] + w1 * mixed[p1 + c] + w2 * mixed[p2 + c] + w3 * mixed[p3 + c];
    }
  }
  return out;
}

/** The four places and weights of each px of the result along a side. */
function taps(length, scale) {
  const places = new Int32Array(4 * length * scale), weights = new Float32Array(places.length);
  for (let k = 0; k < length * scale; k++) {
    const centre = (k + 0.5) / scale - 0.5, first = Math.floor(centre) - 1;
    for (let tap = 0; tap < 4; tap++) {
      places[4 * k + tap] = mirrored(first + tap, length);
      weights[4 * k + tap] = cubic(Math.abs(centre - first - tap));
    }
  }
  return { places, weights };
}

function mirrored(place, length) {
  const at = ((place % (2 * length)) + 2 * length) % (2 * length);
  return at < length ? at : 2 * length - 1 - at;
}

function cubic(x) {
  if (x >= 2) return 0;
  return x <= 1 ? (1.5 * x - 2.5) * x * x + 1 : ((-0.5 * x + 2.5) * x - 4) * x + 2;
}
