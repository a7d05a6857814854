"use strict";
const find = (id) => document.getElementById(id);
const scale = Number(document.documentElement.dataset.scale);
let worker, ready = "", number = 0, file = null, shown = [];

const status = (text, bad = false) => {
  find("status").textContent = text;
  find("status").classList.toggle("bad", bad);
};

const busy = (on) => {
  find("working").hidden = !on;
  if (on) find("progress").removeAttribute("value");
};

function begin() {
  if (location.protocol === "file:")
    return status("Open this page through a web server, on this machine too: python -m http.server in its folder.", true);
  if (!window.Worker || !window.WebAssembly || !window.CompressionStream || !window.OffscreenCanvas)
    return status("This browser is too old for this page; update it, or use another one.", true);
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = (event) => told(event.data);
  worker.onerror = (event) => {
    event.preventDefault();
    busy(false);
    status(`The page could not start: ${event.message || "worker.js cannot be loaded"}. Load it again.`, true);
  };
  find("file").disabled = false;
}

function told(message) {
  if (message.loading !== undefined) {
    if (!ready) status(`Getting ready: ${Math.round(100 * message.loading)} % of the runtime is here.`);
    return;
  }
  if (message.ready) {
    ready = message.ready;
    find("runs").textContent = ready;
    if (!file) status("Ready.");
    return;
  }
  if (message.broken) {
    busy(false);
    find("file").disabled = true;
    return status(`The page could not start: ${message.broken}. Load it again.`, true);
  }
  if (message.number !== number) return;
  if (message.failed) {
    busy(false);
    status(`${file.name}: ${message.failed}`, true);
  } else if (message.progress !== undefined) {
    find("progress").value = message.progress;
    status(`${file.name}: ${Math.floor(100 * message.progress)} %`);
  } else if (message.result) {
    busy(false);
    showResult(message);
  } else if (message.bicubic) {
    const url = keep(message.bicubic);
    find("before").onload = () => {
      find("before").hidden = find("at").hidden = find("sides").hidden = false;
      place(50);
    };
    find("before").src = url;
  }
}

function start(chosen) {
  if (!worker || find("file").disabled || !chosen) return;
  file = chosen;
  number += 1;
  find("view").hidden = true;
  release();
  busy(true);
  status(`${file.name}: ${ready ? "reading" : "waiting for the runtime"}`);
  worker.postMessage({ start: number, blob: file });
}

function cancel() {
  number += 1;
  worker.postMessage({ cancel: true });
  busy(false);
  status(`${file.name}: stopped.`);
}

function showResult({ result, width, height, seconds }) {
  const url = keep(result);
  find("before").hidden = find("at").hidden = find("sides").hidden = true;
  find("before").removeAttribute("src");
  find("after").src = url;
  find("stage").style.setProperty("--at", "0%");
  find("stage").style.aspectRatio = `${width} / ${height}`;
  find("zoom").value = "0";
  zoom(0, width);
  find("download").href = url;
  find("download").download = `${file.name.replace(/\.[^.]*$/, "")}_x${scale}.png`;
  find("download").textContent = `Download PNG, ${width}x${height} px, ${bytes(result.size)}`;
  find("view").hidden = false;
  find("view").dataset.width = width;
  status(`${file.name}: ${width}x${height} px in ${seconds.toFixed(seconds < 10 ? 1 : 0)} s.`);
}

const bytes = (count) => (count < 1e6 ? `${Math.ceil(count / 1e3)} kB` : `${(count / 1e6).toFixed(1)} MB`);
const keep = (blob) => {
  shown.push(URL.createObjectURL(blob));
  return shown.at(-1);
};
const release = () => shown.splice(0).forEach((url) => URL.revokeObjectURL(url));

function place(part) {
  find("at").value = part;
  find("stage").style.setProperty("--at", `${part}%`);
}

function zoom(factor, width) {
  find("stage").style.width = factor ? `${factor * width}px` : "";
  find("stage").classList.toggle("sharp", factor > 1);
}

function follow(event) {
  if (find("at").hidden) return;
  const box = find("stage").getBoundingClientRect();
  place(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
}

find("file").addEventListener("change", (event) => {
  start(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
find("cancel").addEventListener("click", cancel);
find("at").addEventListener("input", (event) => place(event.target.value));
find("zoom").addEventListener("change", (event) => zoom(Number(event.target.value), find("view").dataset.width));
find("stage").addEventListener("pointerdown", (event) => {
  find("stage").setPointerCapture(event.pointerId);
  follow(event);
  event.preventDefault();
});
find("stage").addEventListener("pointermove", (event) => {
  if (find("stage").hasPointerCapture(event.pointerId)) follow(event);
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  start(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => start(event.clipboardData.files[0]));
begin();
