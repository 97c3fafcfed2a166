// What the views share: elements, rows that stay while their content does, and
// how numbers and times are written. What came from the daemon, and so perhaps
// from strangers, goes into the page as text alone.

export const $ = (id) => document.getElementById(id);

// node makes an element. Children are elements or texts; what is nothing is
// left out.
export function node(name, className, ...children) {
  const e = document.createElement(name);
  if (className) e.className = className;
  e.append(...children.filter((c) => c !== null && c !== undefined && c !== "" && c !== false));
  return e;
}

// button makes one that says what it does, and to what.
export function button(text, label, press) {
  const b = node("button", "small", text);
  b.type = "button";
  if (label) b.setAttribute("aria-label", label);
  b.addEventListener("click", press);
  return b;
}

// link leads to a view of this page.
export function link(text, to, label) {
  const a = node("a", "", text);
  a.href = "#" + to;
  if (label) a.setAttribute("aria-label", label);
  return a;
}

export const domainLink = (name) => (name ? link(name, "domain/" + encodeURIComponent(name)) : "");
export const tag = (kind, text) => node("span", "tag " + kind, text);

const drawn = new WeakMap(); // what a row was made of

// keep puts the rows of items into a box. A row whose item did not change stays
// as it is, so that what is selected, open or focused there stays too; one that
// is new is marked, unless all are.
export function keep(box, items, key, build) {
  const first = !box.dataset.filled, keys = new Set(items.map(key));
  const focused = box.contains(document.activeElement) ? document.activeElement : null;
  const row = focused && focused.closest("[data-key]"), at = row && [row.dataset.key, focused.getAttribute("aria-label"), focused.textContent];
  box.dataset.filled = "yes";
  const old = new Map();
  for (const e of [...box.children]) {
    if (e.tagName === "THEAD") continue;
    if (keys.has(e.dataset.key)) old.set(e.dataset.key, e);
    else e.remove();
  }
  let next = box.querySelector(":scope > [data-key]");
  for (const item of items) {
    const k = key(item), now = JSON.stringify(item);
    let e = old.get(k);
    old.delete(k);
    if (!e || drawn.get(e) !== now) {
      const made = build(item);
      made.dataset.key = k;
      drawn.set(made, now);
      if (!e && !first) made.classList.add("new");
      if (e && e === next) next = made;
      if (e) e.replaceWith(made);
      e = made;
    }
    if (e === next) next = e.nextElementSibling;
    else box.insertBefore(e, next);
  }
  if (focused && box.contains(focused)) focused.focus(); // its row may have moved
  if (at && !box.contains(focused)) {
    const again = [...box.children].find((e) => e.dataset.key === at[0]);
    [...(again ? again.querySelectorAll("a, button") : [])].find((e) => e.getAttribute("aria-label") === at[1] && e.textContent === at[2])?.focus();
  }
}

// empty shows a sentence where there are no rows.
export function empty(id, yes, text) {
  const e = $(id);
  e.hidden = !yes;
  if (e.textContent !== text) e.textContent = text;
}

// set changes a text, if it is another.
export function set(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

export const whole = (n) => n.toLocaleString("en-US");

export function seconds(s) {
  if (s >= 100) return Math.round(s) + " s";
  if (s >= 1) return s.toFixed(1) + " s";
  if (s >= 0.001) return Math.round(s * 1000) + " ms";
  return s > 0 ? "< 1 ms" : "–";
}

export function bytes(n) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) if (n >= size) return (n / size).toFixed(n < 10 * size ? 1 : 0) + " " + unit;
  return n + " B";
}

// span writes how long something is, in the two units that matter.
export function span(s) {
  s = Math.max(0, Math.round(s));
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const i = units.findIndex(([, size]) => s >= size);
  if (i < 0) return "0 s";
  const [unit, size] = units[i], more = units[i + 1], rest = more ? Math.floor((s % size) / more[1]) : 0;
  return Math.floor(s / size) + " " + unit + (rest && size > 60 ? " " + rest + " " + more[0] : "");
}

// now is the daemon's host's time: the browser's clock may be another.
let skew = 0;
export function itIs(at) { skew = new Date(at) - Date.now(); }
export const now = () => Date.now() + skew;

const two = (n) => String(n).padStart(2, "0");
export const clock = (at) => { const d = new Date(at); return two(d.getHours()) + ":" + two(d.getMinutes()) + ":" + two(d.getSeconds()); };
export const minute = (at) => clock(at).slice(0, 5);

// zone is the browser's time zone, in which all times are but those in the
// daemon's own words.
export const zone = () => new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" }).formatToParts().find((p) => p.type === "timeZoneName").value;

// moment writes a time of day, with the day where that is another.
export function moment(at) {
  const d = new Date(at);
  if (d.toDateString() === new Date(now()).toDateString()) return clock(at);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${minute(at)}`;
}

export const grade = (code) => (code.startsWith("2") ? "ok" : code.startsWith("5") ? "bad" : "wait");
export const fate = (code) => (code.startsWith("2") ? "delivered" : code.startsWith("5") ? "refused" : "deferred");

// ask asks "mxpolicyd web", which asks the daemon. An error is for people.
export async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("\"mxpolicyd web\" has ended, or cannot be reached: start it again, and open the address that it prints");
  }
  if (answer.status === 403) throw new Error("this page has no access any more: start \"mxpolicyd web\" again, and open the address that it prints");
  const value = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(value.error || answer.statusText);
  return value;
}
