// Two charts of the last hour, drawn as SVG from numbers: messages a minute, and
// how long deliveries took. Under the pointer, or with the arrow keys, each says
// the figures of one minute.
import { minute, seconds, set, whole } from "/dom.js";

const NS = "http://www.w3.org/2000/svg";
const H = 190, LEFT = 46, RIGHT = 6, BOTTOM = 22, TOP = 10;

function el(name, attributes, text) {
  const e = document.createElementNS(NS, name);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  return e;
}

// nice gives a round number that is at least n, and has whole quarters.
function nice(n) {
  for (let p = 1; ; p *= 10) for (const f of [4, 8, 12, 16, 20, 24, 32]) if (f * p >= n) return f * p;
}

const total = (m) => m.delivered + m.deferred + m.refused;

// axes draws what both charts have: lines at the ticks, times below, and a
// shade over the time that the history does not reach back to.
function axes(box, minutes, ticks, known, label) {
  const W = Math.max(box.clientWidth, 250), width = (W - LEFT - RIGHT) / minutes.length;
  const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: "img", "aria-label": label, tabindex: "0", focusable: "true" });
  for (const [y, text] of ticks) {
    svg.append(el("line", { x1: LEFT, x2: W - RIGHT, y1: y, y2: y, class: "grid" }));
    svg.append(el("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, text));
  }
  minutes.forEach((m, i) => {
    const at = new Date(m.at);
    if (at.getMinutes() % (W < 420 ? 20 : 10)) return;
    const x = LEFT + (i + 0.5) * width;
    if (x < LEFT + 18 || x > W - 18) return;
    svg.append(el("text", { x, y: H - 5, "text-anchor": "middle" }, minute(m.at)));
  });
  const unknown = minutes.filter((m) => known && new Date(m.at) < known).length;
  if (unknown) {
    svg.append(el("rect", { x: LEFT, y: TOP, width: unknown * width, height: H - TOP - BOTTOM, class: "unknown" }));
    svg.append(el("text", { x: LEFT + 6, y: TOP + 14 }, "not remembered"));
  }
  svg.append(el("rect", { x: 0, y: TOP, width, height: H - TOP - BOTTOM, class: "cursor", visibility: "hidden" }));
  return [svg, W, width];
}

// readable has a chart say one minute's figures.
function readable(svg, box, minutes, width, out, say) {
  const cursor = svg.querySelector(".cursor");
  const at = (i) => {
    box.dataset.at = i;
    cursor.setAttribute("x", LEFT + i * width);
    cursor.setAttribute("visibility", "visible");
    set(out, say(minutes[i]));
  };
  const off = () => {
    delete box.dataset.at;
    cursor.setAttribute("visibility", "hidden");
    set(out, "");
  };
  const bound = (i) => Math.min(Math.max(i, 0), minutes.length - 1);
  svg.addEventListener("pointermove", (e) => at(bound(Math.floor((e.offsetX - LEFT) / width))));
  svg.addEventListener("pointerleave", off);
  svg.addEventListener("blur", off);
  svg.addEventListener("keydown", (e) => {
    const now = box.dataset.at === undefined ? minutes.length : Number(box.dataset.at);
    const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: minutes.length - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    at(bound(to));
  });
  const had = box.contains(document.activeElement), was = box.dataset.at;
  box.replaceChildren(svg);
  if (had) svg.focus();
  if (was !== undefined && Number(was) < minutes.length) at(Number(was));
}

// outcomes draws stacked bars, one a minute.
export function outcomes(box, out, minutes, known) {
  const top = nice(Math.max(...minutes.map(total))), height = H - TOP - BOTTOM;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((f) => [TOP + height * (1 - f), whole(top * f)]);
  const sum = (k) => whole(minutes.reduce((a, m) => a + m[k], 0));
  const [svg, , width] = axes(box, minutes, ticks, known,
    `Messages a minute in the last hour: ${sum("delivered")} delivered, ${sum("deferred")} deferred, ${sum("refused")} refused in all. Arrow keys read single minutes.`);
  minutes.forEach((m, i) => {
    let y = TOP + height;
    for (const [k, c] of [["delivered", "f-ok"], ["deferred", "f-wait"], ["refused", "f-bad"]]) {
      if (!m[k]) continue;
      const h = Math.max((m[k] / top) * height, 1.5);
      y -= h;
      svg.append(el("rect", { x: LEFT + i * width + 0.75, y, width: Math.max(width - 1.5, 1), height: h, class: c }));
    }
  });
  readable(svg, box, minutes, width, out, (m) => `${minute(m.at)}: ${whole(m.delivered)} delivered, ${whole(m.deferred)} deferred, ${whole(m.refused)} refused`);
}

// latency draws the median and the slowest of each minute on a logarithmic
// scale, so that neither hides the other.
export function latency(box, out, minutes, known) {
  const busy = minutes.filter(total), height = H - TOP - BOTTOM;
  const floor = (s) => Math.floor(Math.log10(Math.max(s, 0.001))), low = Math.min(-2, ...busy.map((m) => floor(m.median_seconds)));
  const high = Math.max(low + 2, 0, ...busy.map((m) => Math.ceil(Math.log10(Math.max(m.slowest_seconds, 0.001)))));
  const y = (s) => TOP + height * (1 - (Math.log10(Math.max(s, 10 ** low)) - low) / (high - low));
  const ticks = [];
  for (let p = low; p <= high; p++) ticks.push([y(10 ** p), p < 0 ? 10 ** (p + 3) + " ms" : whole(10 ** p) + " s"]);
  const [svg, , width] = axes(box, minutes, ticks, known, "How long deliveries took in the last hour: the median and the slowest of each minute. Arrow keys read single minutes.");
  const x = (i) => LEFT + (i + 0.5) * width;
  minutes.forEach((m, i) => {
    if (!total(m)) return;
    svg.append(el("line", { x1: x(i), x2: x(i), y1: y(m.median_seconds), y2: y(m.slowest_seconds), class: "s-range" }));
    svg.append(el("circle", { cx: x(i), cy: y(m.slowest_seconds), r: 2, class: "s-slow" }));
  });
  let d = "";
  minutes.forEach((m, i) => {
    if (total(m)) d += (i > 0 && total(minutes[i - 1]) ? "L" : "M") + x(i).toFixed(1) + " " + y(m.median_seconds).toFixed(1) + (i > 0 && total(minutes[i - 1]) ? "" : "h0.1");
  });
  if (d) svg.append(el("path", { d, class: "s-median", "stroke-linecap": "round", "stroke-linejoin": "round" }));
  readable(svg, box, minutes, width, out, (m) => (total(m) ? `${minute(m.at)}: median ${seconds(m.median_seconds)}, slowest ${seconds(m.slowest_seconds)}` : `${minute(m.at)}: no messages`));
}
