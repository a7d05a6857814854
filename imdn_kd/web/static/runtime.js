/**
 * ONNX Runtime Web: WebGPU where there is one that gives the results of the processor, otherwise WASM with SIMD.
 */

const BUILDS = {
  webgpu: { script: "ort.webgpu.js", binary: "ort-wasm-simd-threaded.asyncify" },
  wasm: { script: "ort.wasm.js", binary: "ort-wasm-simd-threaded" },
};
const SAMPLE = 32; // side of the image on which a GPU is tried, px
const TOLERANCE = 1e-3; // of the range; half a level is 2e-3

/**
 * @param {ArrayBuffer} graph the ONNX file.
 * @param {object} model what model.json says.
 * @param {(part: number) => void} onProgress how much of the runtime is there, 0 to 1.
 */
export async function openRuntime(graph, model, onProgress) {
  if (await hasGpu()) {
    try {
      const runtime = await load("webgpu", graph, onProgress);
      await compare(runtime, model);
      return runtime;
    } catch (error) {
      console.info(`WebGPU is not used: ${error.message ?? error}`);
    }
  }
  return load("wasm", graph, onProgress);
}

async function hasGpu() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return Boolean(adapter) && !adapter.info?.isFallbackAdapter; // such a one is the processor, slower than WASM
  } catch {
    return false;
  }
}

async function load(name, graph, onProgress) {
  const { script, binary } = BUILDS[name];
  const folder = new URL("./runtime/", import.meta.url);
  const content = await download(new URL(`${binary}.wasm`, folder), onProgress);
  const ort = await import(new URL(script, folder).href);
  ort.env.wasm.wasmBinary = content;
  ort.env.wasm.wasmPaths = { mjs: new URL(`${binary}.js`, folder).href };
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;
  ort.env.logLevel = "error";
  return new Runtime(ort, name, graph);
}

async function download(url, onProgress) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.pathname} is not there (HTTP ${response.status})`);
  const total = Number(response.headers.get("Content-Length")) || 3e7;
  const parts = [];
  let size = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    onProgress(Math.min(1, size / total));
  }
  return new Blob(parts).arrayBuffer();
}

class Runtime {
  constructor(ort, provider, graph) {
    this.ort = ort;
    this.provider = provider;
    this.graph = graph;
    this.session = null;
    this.size = "";
  }

  get label() {
    const { numThreads } = this.ort.env.wasm;
    if (this.provider === "webgpu") return "WebGPU";
    return numThreads > 1 ? `WebAssembly, ${numThreads} threads` : "WebAssembly, one thread";
  }

  /**
   * Run the network on one image.
   *
   * @param {Float32Array} image C x height x width.
   * @returns {Promise<Float32Array>} C x scale * height x scale * width.
   */
  async run(image, channels, height, width) {
    await this.prepare(height, width);
    const input = new this.ort.Tensor("float32", image, [1, channels, height, width]);
    const { sr } = await this.session.run({ image: input });
    const values = await sr.getData();
    sr.dispose();
    return values;
  }

  /** Sizes are fixed in the graph: with free ones, GPU buffers grow and kernels are slower. */
  async prepare(height, width) {
    const size = `${height}x${width}`;
    if (size === this.size) return;
    await this.session?.release();
    this.session = null;
    this.session = await this.ort.InferenceSession.create(this.graph.slice(0), {
      executionProviders: [this.provider],
      freeDimensionOverrides: { batch: 1, image_height: height, image_width: width },
    });
    this.size = size;
  }
}

/** Throws where a GPU gives other values than the processor. */
async function compare(runtime, model) {
  const side = Math.ceil(Math.max(SAMPLE, model.min_size) / model.size_multiple) * model.size_multiple;
  const image = new Float32Array(model.channels * side * side);
  for (let k = 0, state = 1; k < image.length; k++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // the same noise each time
    image[k] = (model.value_range * state) / 2 ** 32;
  }
  const values = [];
  for (const provider of ["webgpu", "wasm"]) {
    runtime.provider = provider;
    runtime.size = "";
    values.push(await runtime.run(image.slice(), model.channels, side, side));
  }
  runtime.provider = "webgpu";
  runtime.size = "";
  const [found, expected] = values;
  const worst = found.reduce((most, value, k) => Math.max(most, Math.abs(value - expected[k])), 0);
  if (!(worst <= TOLERANCE * model.value_range)) throw new Error(`it is off by ${worst} of ${model.value_range}`);
}
