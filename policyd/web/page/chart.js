// Two small charts, drawn as SVG from numbers; nothing of a chart is markup
// that somebody else wrote.

const NS = "http://www.w3.org/2000/svg";
const H = 170, LEFT = 52, BOTTOM = 20, TOP = 8;

function el(name, attributes, text) {
  const e = document.createElementNS(NS, name);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  return e;
}

// nice gives a round number that is at least n.
export function nice(n) {
  if (n <= 0) return 1;
  const p = 10 ** Math.floor(Math.log10(n));
  for (const f of [1, 2, 5, 10]) if (f * p >= n) return f * p;
  return n;
}

function frame(box, label, top, format, minutes) {
  const W = Math.max(box.clientWidth, 260);
  const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label });
  for (const part of [0, 0.5, 1]) {
    const y = TOP + (H - TOP - BOTTOM) * (1 - part);
    svg.append(el("line", { x1: LEFT, x2: W, y1: y, y2: y, class: "grid" }));
    svg.append(el("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, format(top * part)));
  }
  const n = minutes.length;
  for (let i = 0; i < n; i += W < 420 ? 30 : 15) {
    const at = new Date(minutes[i].at);
    const x = LEFT + (W - LEFT) * (i / n);
    svg.append(el("text", { x, y: H - 5 }, at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })));
  }
  return [svg, W];
}

// outcomes draws stacked bars, one a minute.
export function outcomes(box, minutes) {
  const top = nice(Math.max(1, ...minutes.map((m) => m.delivered + m.deferred + m.refused)));
  const sum = (k) => minutes.reduce((a, m) => a + m[k], 0);
  const [svg, W] = frame(box, `Messages a minute in the last hour: ${sum("delivered")} delivered, ${sum("deferred")} deferred, ${sum("refused")} refused`, top, (v) => String(v), minutes);
  const height = H - TOP - BOTTOM, width = (W - LEFT) / minutes.length;
  minutes.forEach((m, i) => {
    let y = TOP + height;
    for (const [k, c] of [["delivered", "f-ok"], ["deferred", "f-wait"], ["refused", "f-bad"]]) {
      if (!m[k]) continue;
      const h = (m[k] / top) * height;
      y -= h;
      svg.append(el("rect", { x: LEFT + i * width + 1, y, width: Math.max(width - 2, 1), height: h, class: c }));
    }
  });
  box.replaceChildren(svg);
}

export function seconds(s) {
  if (s >= 100) return Math.round(s) + " s";
  if (s >= 1) return s.toFixed(1) + " s";
  if (s >= 0.001) return Math.round(s * 1000) + " ms";
  return s > 0 ? Math.round(s * 1e6) + " µs" : "0";
}

// latency draws the median and the slowest of each minute; a minute without
// mail breaks the line.
export function latency(box, minutes) {
  const top = nice(Math.max(0.01, ...minutes.map((m) => m.slowest_seconds)));
  const [svg, W] = frame(box, "Time to deliver in the last hour, median and slowest of each minute", top, seconds, minutes);
  const height = H - TOP - BOTTOM, width = (W - LEFT) / minutes.length;
  for (const [k, c] of [["slowest_seconds", "s-2"], ["median_seconds", "s-1"]]) {
    let d = "";
    minutes.forEach((m, i) => {
      const some = m.delivered + m.deferred + m.refused > 0;
      const before = i > 0 && minutes[i - 1].delivered + minutes[i - 1].deferred + minutes[i - 1].refused > 0;
      if (!some) return;
      const x = LEFT + (i + 0.5) * width, y = TOP + height * (1 - m[k] / top);
      d += (before ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1) + (before ? "" : "h0.1");
    });
    if (d) svg.append(el("path", { d, class: c, "stroke-linecap": "round" }));
  }
  box.replaceChildren(svg);
}
