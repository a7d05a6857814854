import { bleed } from "./alpha.js";

const BAND = 256; // rows

/** What is wrong with a picture, and what to do about it, for the visitor. */
export class Refusal extends Error {}

/**
 * Decode a picture: four channels of 8 bits in sRGB, upright, colours where it is transparent continued.
 *
 * @param {Blob} blob the file.
 * @param {number} scale of the result.
 * @param {number} mostPixels of the result.
 * @returns {Promise<{data: Uint8ClampedArray, width: number, height: number, colours: number[], alpha: ?number}>}
 *     `colours`: the channels that hold them, one for grey pictures; `alpha`: null for opaque pictures, -1 where it
 *     differs from px to px, otherwise its level.
 */
export async function readPicture(blob, scale, mostPixels) {
  if (!blob.size) throw new Refusal("The file is empty; get a fresh copy.");
  const stated = header(new DataView(await blob.slice(0, 1 << 20).arrayBuffer()));
  if (stated.width) check(stated.width, stated.height, scale, mostPixels);
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { premultiplyAlpha: "none" });
  } catch {
    throw new Refusal("This browser cannot read the file as a picture; convert it to PNG or JPEG.");
  }
  const { width, height } = bitmap;
  check(width, height, scale, mostPixels);
  const data = pixels(bitmap);
  bitmap.close();
  const alpha = alphaOf(data);
  if (alpha !== null) bleed(data, width, height);
  return { data, width, height, colours: stated.grey ? [0] : [0, 1, 2], alpha };
}

/** Four channels of 8 bits, read in bands: a canvas for all of a large picture would be too large for some browsers. */
function pixels(bitmap) {
  const { width, height } = bitmap;
  const data = new Uint8ClampedArray(4 * width * height);
  const canvas = new OffscreenCanvas(width, Math.min(height, BAND));
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.globalCompositeOperation = "copy";
  for (let top = 0; top < height; top += BAND) {
    context.drawImage(bitmap, 0, -top);
    data.set(context.getImageData(0, 0, width, Math.min(BAND, height - top)).data, 4 * top * width);
  }
  return data;
}

function check(width, height, scale, mostPixels) {
  const pixels = width * height * scale ** 2;
  if (pixels <= mostPixels) return;
  const [wide, high] = [width * scale, height * scale];
  throw new Refusal(
    `${width}x${height} px would become ${wide}x${high} px, ${Math.round(pixels / 1e6)} million pixels; ` +
      `this page makes at most ${Math.round(mostPixels / 1e6)} million. Choose a smaller picture, or use imdn-kd upscale.`,
  );
}

function alphaOf(data) {
  const first = data[3];
  for (let k = 7; k < data.length; k += 4) if (data[k] !== first) return -1;
  return first === 255 ? null : first;
}

/** Size of a PNG or JPEG, and whether it is grey, by its header; nothing of other files. */
function header(view) {
  try {
    if (view.getUint32(0) === 0x89504e47)
      return { width: view.getUint32(16), height: view.getUint32(20), grey: [0, 4].includes(view.getUint8(25)) };
    if (view.getUint16(0) === 0xffd8)
      for (let at = 2; ; at += 2 + view.getUint16(at + 2)) {
        const marker = view.getUint8(at + 1);
        if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker))
          return { height: view.getUint16(at + 5), width: view.getUint16(at + 7), grey: view.getUint8(at + 9) === 1 };
      }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // cut short: decoding tells
  }
  return {};
}
