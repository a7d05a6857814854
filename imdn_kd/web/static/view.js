"use strict";
/** The result beside the picture before: a divider that is dragged, zoom, the file to download. */

const find = (id) => document.getElementById(id);
const view = find("view"), pane = find("pane"), stage = find("stage"), divider = find("at");
let urls = [];

const urlOf = (blob) => {
  urls.push(URL.createObjectURL(blob));
  return urls.at(-1);
};

/** Whether there is something to compare with. */
const compares = (on) => document.querySelectorAll("[data-compares]").forEach((element) => (element.hidden = !on));

/** Forget what is shown. */
function clearView() {
  view.hidden = true;
  compares(false);
  find("after").removeAttribute("src");
  find("before").removeAttribute("src");
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = [];
}

/** Show a result, a PNG of width x height px, and offer it under a name. */
function showResult(blob, width, height, name) {
  const url = urlOf(blob);
  find("after").src = url;
  find("download").href = url;
  find("download").download = name;
  find("download").textContent = `Download PNG, ${width}x${height} px, ${sizeOf(blob)}`;
  view.style.setProperty("--width", width);
  view.style.setProperty("--height", height);
  view.hidden = false;
  find("zoom").value = "0";
  zoom(0);
}

/** Show what the result is compared with, once it is decoded. */
function showBefore(blob) {
  const image = find("before");
  image.onload = () => {
    compares(true);
    place(50);
  };
  image.src = urlOf(blob);
}

const sizeOf = ({ size }) => (size < 1e6 ? `${Math.ceil(size / 1e3)} kB` : `${(size / 1e6).toFixed(1)} MB`);

/** How wide the part of the stage is that is seen, px. */
const seen = () => Math.min(pane.clientWidth, stage.offsetWidth);

/** Put the divider at a percentage of what is seen; without one, where it stands, as after scrolling. */
function place(percent = divider.value) {
  divider.value = percent;
  const at = (divider.value / 100) * seen();
  view.style.setProperty("--at", `${at}px`);
  view.style.setProperty("--cut", divider.hidden ? "0px" : `${at + pane.scrollLeft}px`);
}

/** Show each px of the result as `factor` px; 0: as much as there is room for. The middle stays in the middle. */
function zoom(factor) {
  const x = (pane.scrollLeft + pane.clientWidth / 2) / stage.offsetWidth;
  const y = (pane.scrollTop + pane.clientHeight / 2) / stage.offsetHeight;
  view.style.setProperty("--zoom", factor);
  view.classList.toggle("zoomed", factor > 0);
  view.classList.toggle("sharp", factor > 1);
  pane.scrollTo(x * stage.offsetWidth - pane.clientWidth / 2, y * stage.offsetHeight - pane.clientHeight / 2);
  place();
}

function follow(event) {
  place((100 * (event.clientX - pane.getBoundingClientRect().left)) / seen());
}

divider.addEventListener("input", () => place());
pane.addEventListener("scroll", () => place());
new ResizeObserver(() => place()).observe(stage);
find("zoom").addEventListener("change", (event) => zoom(Number(event.target.value)));
stage.addEventListener("pointerdown", (event) => {
  if (event.pointerType === "touch" && view.classList.contains("zoomed")) return; // a finger moves the picture then
  stage.setPointerCapture(event.pointerId);
  follow(event);
  event.preventDefault();
});
stage.addEventListener("pointermove", (event) => {
  if (stage.hasPointerCapture(event.pointerId)) follow(event);
});
