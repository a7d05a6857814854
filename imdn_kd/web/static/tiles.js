/**
 * Tiles of one size along `length` px, so that what is kept of each is what the whole image gives.
 *
 * Tiles overlap by the receptive field. Those at the ends lie at the edges of the image, where the network pads as it
 * does for the whole image, and reach further inwards than they need.
 *
 * @param {number} length of the image, px; a multiple of what the network takes.
 * @param {number} side of a tile, px, more than twice the overlap.
 * @param {number} overlap px.
 * @returns {{start: number, size: number, from: number, to: number}[]} where a tile begins, its side, and what is kept
 *     of it, in px of the image.
 */
export function spans(length, side, overlap) {
  if (length <= side) return [{ start: 0, size: length, from: 0, to: length }];
  const step = side - 2 * overlap;
  const found = [];
  for (let from = 0; from < length; ) {
    const start = Math.min(found.length * step, length - side);
    const to = start + side === length ? length : start + side - overlap;
    found.push({ start, size: side, from, to });
    from = to;
  }
  return found;
}

/** The smallest multiple of `step` that is not below `value`. */
export const roundUp = (value, step) => Math.ceil(value / step) * step;
