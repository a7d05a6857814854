const TYPES = { 1: 0, 2: 4, 3: 2, 4: 6 }; // colour types by channels
const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/**
 * A PNG of 8 bits in sRGB, written row by row (https://www.w3.org/TR/png-3/), so that no more than its rows and what is
 * compressed lies in memory. A canvas would have limits of size, and lose colours where it is nearly transparent.
 */
export class PngWriter {
  /** @param {number} channels 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA. */
  constructor(width, height, channels) {
    this.stride = width * channels;
    this.channels = channels;
    this.above = new Uint8Array(this.stride);
    const header = new DataView(new ArrayBuffer(13));
    header.setUint32(0, width);
    header.setUint32(4, height);
    header.setUint8(8, 8);
    header.setUint8(9, TYPES[channels]);
    this.parts = [SIGNATURE, ...chunk("IHDR", new Uint8Array(header.buffer)), ...chunk("sRGB", Uint8Array.of(0))];
    const stream = new CompressionStream("deflate");
    this.writer = stream.writable.getWriter();
    this.collected = this.collect(stream.readable.getReader());
  }

  async collect(reader) {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.parts.push(...chunk("IDAT", value));
    }
  }

  /** @param {Uint8ClampedArray} rows whole rows, one after the other. */
  async write(rows) {
    const { stride, channels } = this;
    const count = rows.length / stride;
    const filtered = new Uint8Array(count * (stride + 1));
    for (let row = 0; row < count; row++) {
      const line = rows.subarray(row * stride, (row + 1) * stride);
      const out = row * (stride + 1);
      filtered[out] = 4; // Paeth
      paeth(line, this.above, channels, filtered.subarray(out + 1, out + 1 + stride));
      this.above = line;
    }
    this.above = this.above.slice(); // `rows` belongs to the caller
    await this.writer.ready;
    await this.writer.write(filtered);
  }

  /** @returns {Promise<Blob>} */
  async finish() {
    await this.writer.close();
    await this.collected;
    return new Blob([...this.parts, ...chunk("IEND", new Uint8Array(0))], { type: "image/png" });
  }

  /** Give up what was begun. */
  async abort() {
    this.collected.catch(() => {});
    await this.writer.abort().catch(() => {});
  }
}

function paeth(line, above, step, out) {
  for (let k = 0; k < step && k < line.length; k++) out[k] = line[k] - above[k];
  for (let k = step; k < line.length; k++) {
    const a = line[k - step], b = above[k], c = above[k - step];
    const pa = Math.abs(b - c), pb = Math.abs(a - c), pc = Math.abs(a + b - 2 * c);
    out[k] = line[k] - (pa <= pb && pa <= pc ? a : pb <= pc ? b : c);
  }
}

function chunk(kind, data) {
  const head = new DataView(new ArrayBuffer(8)), tail = new DataView(new ArrayBuffer(4));
  head.setUint32(0, data.length);
  for (let k = 0; k < 4; k++) head.setUint8(4 + k, kind.charCodeAt(k));
  let crc = 0xffffffff;
  for (let k = 4; k < 8; k++) crc = CRC_TABLE[(crc ^ head.getUint8(k)) & 255] ^ (crc >>> 8);
  for (let k = 0; k < data.length; k++) crc = CRC_TABLE[(crc ^ data[k]) & 255] ^ (crc >>> 8);
  tail.setUint32(0, crc ^ 0xffffffff);
  return [head.buffer, data, tail.buffer];
}
