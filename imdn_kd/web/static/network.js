import { roundUp, spans } from "./tiles.js";

const LUMA = [65.481 / 219, 128.553 / 219, 24.966 / 219]; // BT.601, full range

/**
 * Enlarges pictures in tiles, with the result of the whole picture.
 *
 * @param {object} runtime from `openRuntime`.
 * @param {object} model what model.json says.
 */
export class Network {
  constructor(runtime, model) {
    this.runtime = runtime;
    this.model = model;
  }

  /**
   * Enlarge a picture; its rows come out in bands, from the top.
   *
   * @param {object} picture from `readPicture`.
   * @param {(part: number) => Promise<void>} onTile called after each tile with what is done, 0 to 1.
   * @yields {Uint8ClampedArray} rows of as many channels as the picture has.
   */
  async *bands(picture, onTile) {
    const { scale, size_multiple: step, min_size: smallest, tile, overlap } = this.model;
    const [rows, columns] = [picture.height, picture.width].map((side) =>
      spans(roundUp(Math.max(side, smallest), step), tile, overlap),
    );
    const groups = [picture.colours, ...(picture.alpha === -1 ? [[3]] : [])];
    const count = picture.colours.length + (picture.alpha === null ? 0 : 1);
    const wide = picture.width * scale;
    let done = 0;
    for (const row of rows) {
      const bottom = Math.min(row.to, picture.height); // below are rows that the network needs alone
      const band = new Uint8ClampedArray((bottom - row.from) * scale * wide * count);
      if (picture.alpha > 0) band.fill(picture.alpha); // colours follow
      for (const column of columns) {
        let channel = 0;
        for (const group of groups)
          for (const plane of await this.planes(picture, group, row, column))
            insert(plane, { row, column, scale }, band, { wide, count, channel: channel++ });
        done++;
        await onTile(done / (rows.length * columns.length));
      }
      yield band;
    }
  }

  /** The levels of channels of a tile, one map each, enlarged; a network for other channels gets what suits it. */
  async planes(picture, channels, row, column) {
    const wanted = this.model.channels;
    if (channels.length === wanted) return this.run(picture, channels, row, column);
    if (channels.length === 1) {
      const [red, green, blue] = await this.run(picture, Array(wanted).fill(channels[0]), row, column);
      return [red.map((value, k) => LUMA[0] * value + LUMA[1] * green[k] + LUMA[2] * blue[k])];
    }
    const found = [];
    for (const channel of channels) found.push(...(await this.run(picture, [channel], row, column)));
    return found;
  }

  async run(picture, channels, row, column) {
    const { data, width, height } = picture;
    const factor = Math.fround(this.model.value_range / 255);
    const area = row.size * column.size;
    const image = new Float32Array(channels.length * area);
    for (let y = 0, at = 0; y < row.size; y++) {
      const line = Math.min(row.start + y, height - 1) * width;
      for (let x = 0; x < column.size; x++, at++) {
        const from = 4 * (line + Math.min(column.start + x, width - 1));
        for (let c = 0; c < channels.length; c++) image[c * area + at] = data[from + channels[c]] * factor;
      }
    }
    const values = await this.runtime.run(image, channels.length, row.size, column.size);
    for (let k = 0; k < values.length; k++) values[k] /= factor;
    const size = values.length / channels.length;
    return channels.map((_, c) => values.subarray(c * size, (c + 1) * size));
  }
}

/**
 * Copy what is kept of an enlarged tile into a band of the result.
 *
 * @param {Float32Array} plane one channel of the tile.
 * @param {object} tile its spans `row` and `column`, and the scale.
 * @param {Uint8ClampedArray} band whole rows from the first one that is kept of the tile; what is below or right of the
 *     result is left out. Arrays of this kind clamp, and round half to even.
 * @param {object} layout `wide`: px in a row; `count`: channels of a px; `channel`: that of the plane.
 */
function insert(plane, { row, column, scale }, band, { wide, count, channel }) {
  const right = Math.min(column.to * scale, wide);
  const rows = band.length / (wide * count);
  for (let y = 0; y < rows; y++) {
    let from = ((y + (row.from - row.start) * scale) * column.size + column.from - column.start) * scale;
    let to = (y * wide + column.from * scale) * count + channel;
    for (let x = column.from * scale; x < right; x++, to += count) band[to] = plane[from++];
  }
}
