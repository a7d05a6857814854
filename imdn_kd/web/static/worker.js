/**
 * Enlarges one picture at a time, off the page.
 *
 * Takes {start: number, blob: Blob} and {cancel: true}; the number goes back with everything that is said of the picture.
 * Says {loading: part}, {ready: what runs the network}, {broken: why not}; of a picture {progress: part},
 * {result: Blob, width, height, seconds}, then {before: Blob}, what it is compared with, or {failed: why}.
 */
import { bicubicRows } from "./bicubic.js";
import { Network } from "./network.js";
import { PngWriter } from "./png.js";
import { openRuntime } from "./runtime.js";
import { Refusal, readPicture } from "./source.js";

class Cancelled extends Error {}

const BAND = 256; // rows of bicubic at once
let current = null;
const opened = open();
let last = opened;

self.onmessage = ({ data }) => {
  current = data.cancel ? null : data.start;
  if (!data.cancel) last = last.then(() => work(data.start, data.blob));
};

async function open() {
  try {
    const model = await (await needed("model.json")).json();
    const graph = await (await needed("model.onnx")).arrayBuffer();
    const runtime = await openRuntime(graph, model, (loading) => postMessage({ loading }));
    await runtime.prepare(model.tile, model.tile); // so that all of it is here, and nothing more is fetched
    postMessage({ ready: runtime.label });
    return { model, network: new Network(runtime, model) };
  } catch (error) {
    postMessage({ broken: String(error.message ?? error) });
    return null;
  }
}

async function needed(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} is not there (HTTP ${response.status})`);
  return response;
}

async function work(number, blob) {
  const ready = await opened;
  if (!ready) return;
  const say = (message) => postMessage({ number, ...message });
  try {
    await check(number);
    const { model, network } = ready;
    const start = performance.now();
    const picture = await readPicture(blob, model.scale, model.most_pixels);
    const onTile = async (progress) => {
      say({ progress });
      await check(number);
    };
    const result = await write(picture, model.scale, network.bands(picture, onTile));
    const size = { width: picture.width * model.scale, height: picture.height * model.scale };
    say({ result, ...size, seconds: (performance.now() - start) / 1000 });
    say({ before: await write(picture, model.scale, bicubicBands(picture, model.scale, () => check(number))) });
  } catch (error) {
    if (error instanceof Cancelled) return;
    const text = String(error.message ?? error);
    const memory = error instanceof RangeError || /memory|allocat/i.test(text);
    if (error instanceof Refusal) say({ failed: text });
    else say({ failed: memory ? "There is not enough memory; choose a smaller picture." : `Unexpected: ${text}` });
  }
}

async function write(picture, scale, bands) {
  const channels = channelsOf(picture).length;
  const png = new PngWriter(picture.width * scale, picture.height * scale, channels);
  try {
    for await (const band of bands) await png.write(band);
  } catch (error) {
    await png.abort();
    throw error;
  }
  return png.finish();
}

async function* bicubicBands(picture, scale, onBand) {
  const rows = picture.height * scale;
  for (let from = 0; from < rows; from += BAND) {
    yield bicubicRows(picture, channelsOf(picture), scale, from, Math.min(rows, from + BAND));
    await onBand();
  }
}

const channelsOf = (picture) => (picture.alpha === null ? picture.colours : [...picture.colours, 3]);

/** Let messages come in; throws if the picture is no longer wanted. */
async function check(number) {
  await new Promise((resolve) => setTimeout(resolve));
  if (number !== current) throw new Cancelled();
}
