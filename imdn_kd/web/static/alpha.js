/**
 * Give transparent pixels the colour of visible ones nearby, so that enlarging draws no dark fringe around what is
 * opaque. Spreads px by px from the visible ones.
 *
 * @param {Uint8ClampedArray} data four channels, changed in place; alpha stays.
 */
export function bleed(data, width, height) {
  const count = width * height;
  const known = new Uint8Array(count);
  for (let k = 0; k < count; k++) known[k] = data[4 * k + 3] > 0 ? 1 : 0;
  let front = [];
  const spread = (from, next) => {
    const x = from % width;
    if (x > 0) reach(from - 1, from, next);
    if (x < width - 1) reach(from + 1, from, next);
    if (from >= width) reach(from - width, from, next);
    if (from < count - width) reach(from + width, from, next);
  };
  const reach = (to, from, next) => {
    if (known[to]) return;
    known[to] = 2;
    for (let c = 0; c < 3; c++) data[4 * to + c] = data[4 * from + c];
    next.push(to);
  };
  for (let k = 0; k < count; k++) if (known[k] === 1) spread(k, front);
  while (front.length) {
    const next = [];
    for (const k of front) spread(k, next);
    front = next;
  }
}
