"use strict";
/** Takes pictures, hands them to the worker, and says how it goes. A classic script: modules do not run from file: URLs. */

let worker = null, ready = false, number = 0, file = null;

function say(text, bad = false) {
  find("status").textContent = text;
  find("status").classList.toggle("bad", bad);
}

/** Show progress, 0 to 1; -1: how much is done is not known; nothing: there is nothing to wait for. */
function showProgress(part) {
  find("working").hidden = part === undefined;
  find("cancel").hidden = !file;
  if (part >= 0) find("progress").value = part;
  else find("progress").removeAttribute("value");
}

function begin() {
  if (location.protocol === "file:")
    return say("Open this page through a web server, on this machine too: python -m http.server in its folder.", true);
  if (!window.Worker || !window.WebAssembly || !window.CompressionStream || !window.OffscreenCanvas)
    return say("This browser is too old for this page; update it, or use another one.", true);
  say("Getting ready.");
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => ("number" in data ? toldOfPicture(data) : toldOfPage(data));
  worker.onerror = (event) => {
    event.preventDefault();
    fail(event.message || "worker.js cannot be loaded");
  };
  find("file").disabled = false;
}

/** The worker is of no use any more. */
function fail(why) {
  showProgress();
  find("file").disabled = true;
  say(`The page does not work: ${why}. Load it again.`, true);
}

function toldOfPage({ loading, ready: label, broken }) {
  if (broken) return fail(broken);
  if (loading !== undefined) return showProgress(loading);
  ready = true;
  find("runs").textContent = label;
  showProgress(file ? -1 : undefined);
  say(file ? `${file.name}: reading` : "Ready.");
}

function toldOfPicture({ number: which, progress, failed, result, width, height, seconds, before }) {
  if (which !== number) return;
  if (progress !== undefined) {
    if (!find("progress").hasAttribute("value")) say(`${file.name}: at work`);
    return showProgress(progress);
  }
  if (before) return showBefore(before);
  showProgress();
  if (failed) return say(`${file.name}: ${failed}`, true);
  const name = file.name.replace(/\.[^.]*$/, "");
  showResult(result, width, height, `${name}_${document.documentElement.dataset.suffix}.png`);
  say(`${file.name}: ${width}x${height} px in ${seconds.toFixed(seconds < 10 ? 1 : 0)} s.`);
}

function start(chosen) {
  if (find("file").disabled || !chosen) return;
  file = chosen;
  number += 1;
  clearView();
  showProgress(-1);
  say(`${file.name}: ${ready ? "reading" : "waiting for the runtime"}`);
  worker.postMessage({ start: number, blob: file });
}

function cancel() {
  number += 1;
  worker.postMessage({ cancel: true });
  showProgress();
  say(`${file.name}: stopped.`);
}

find("file").addEventListener("change", (event) => {
  start(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
find("cancel").addEventListener("click", cancel);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  start(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => start(event.clipboardData.files[0]));
begin();
