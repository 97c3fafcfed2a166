// The page: asks every two seconds while it is seen, and draws what changed.
// What comes from the daemon goes into the page as text alone.
import { outcomes, latency, seconds } from "/chart.js";
import { draw } from "/way.js";

const $ = (id) => document.getElementById(id);
const EVERY = 2000;
let by = "destinations", last = null, timer = null;

function node(name, className, text) {
  const e = document.createElement(name);
  if (className) e.className = className;
  if (text !== undefined && text !== null) e.textContent = text;
  return e;
}

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const value = await answer.json().catch(() => ({ error: answer.statusText }));
  if (!answer.ok) throw new Error(value.error || answer.statusText);
  return value;
}

function live(up, text) {
  $("dot").className = "dot " + (up ? "up" : "down");
  if ($("live-text").textContent !== text) $("live-text").textContent = text;
}

async function refresh() {
  clearTimeout(timer);
  try {
    last = await ask("/api/overview");
    live(true, "live");
    show(last);
  } catch (err) {
    live(false, err.message);
  }
  if (!document.hidden) timer = setTimeout(refresh, EVERY);
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });

const grade = (code) => (code.startsWith("2") ? "ok" : code.startsWith("5") ? "bad" : "wait");

function card(name, value) {
  const div = node("div");
  div.append(node("dt", "", name), node("dd", "", value));
  return div;
}

function show(o) {
  const s = o.status;
  $("version").textContent = s.version;
  const sum = (k) => o.minutes.reduce((a, m) => a + m[k], 0);
  const idle = s.transports.reduce((a, t) => a + t.idle_connections, 0);
  const reused = s.transports.reduce((a, t) => a + t.reused, 0), missed = s.transports.reduce((a, t) => a + t.missed, 0);
  const busy = o.minutes.filter((m) => m.delivered + m.deferred + m.refused > 0);
  const median = busy.length ? busy.map((m) => m.median_seconds).sort((a, b) => a - b)[Math.floor(busy.length / 2)] : 0;
  $("cards").replaceChildren(
    card("delivered", sum("delivered").toLocaleString()), card("deferred", sum("deferred").toLocaleString()), card("refused", sum("refused").toLocaleString()),
    card("median time", seconds(median)), card("in progress", `${s.messages} / ${s.max_deliveries}`), card("idle connections", idle),
    card("connection reused", reused + missed ? Math.round((100 * reused) / (reused + missed)) + " %" : "–"));
  outcomes($("chart-outcome"), o.minutes);
  latency($("chart-latency"), o.minutes);
  showLevels(o.levels);
  showWarnings(s);
  showPeers(o);
  showLast(o.last);
}

function showWarnings(s) {
  const list = (s.warnings || []).slice();
  if (s.rejected) list.push("The configuration was changed and is wrong; the one before is in force.");
  if (s.overdue) list.push(`${s.overdue} deliveries should have ended long ago.`);
  const box = $("warnings"), text = list.join("\n");
  if (box.dataset.text === text) return;
  box.dataset.text = text;
  box.replaceChildren(...list.map((l) => node("p", "", l)));
}

function showLevels(levels) {
  const all = levels.reduce((a, l) => a + l.messages, 0);
  if (!all) { $("levels").replaceChildren(node("p", "dim", "Nothing was delivered in the last hour.")); return; }
  $("levels").replaceChildren(...levels.map((l) => {
    const row = node("div", "level"), track = node("span", "track"), fill = node("span", "fill");
    fill.style.width = (100 * l.messages) / all + "%";
    track.append(fill);
    row.append(node("span", "", l.name), track, node("span", "num", ((100 * l.messages) / all).toFixed(1) + " %"));
    return row;
  }));
}

// states gathers what holds a peer up, by name.
function states(s) {
  const map = new Map();
  const add = (name, text, kind) => { if (!map.has(name)) map.set(name, []); map.get(name).push([text, kind]); };
  for (const t of s.transports) {
    for (const d of t.dead) add(d.host, "dead", "bad");
    for (const d of t.slowed) add(d.host, "slowed", "wait");
  }
  for (const p of s.pauses || []) add(p.name, "paused", "wait");
  for (const p of s.suspended || []) add(p.target.replace(/^provider:/, ""), "suspended", "wait");
  return map;
}

function action(text, label, f) {
  const b = node("button", "small", text);
  b.type = "button";
  b.setAttribute("aria-label", label);
  b.addEventListener("click", f);
  return b;
}

let drawn = "";
function showPeers(o) {
  const filter = $("filter").value.trim().toLowerCase();
  const list = o[by].filter((p) => p.name.includes(filter));
  const held = states(o.status);
  const key = JSON.stringify([by, list, [...held]]);
  if (key === drawn) return; // so that a focused button stays
  drawn = key;
  const focused = document.activeElement && document.activeElement.getAttribute("aria-label");
  $("peers").replaceChildren(...list.map((p) => {
    const row = node("tr"), target = by === "providers" ? "provider:" + p.name : p.name;
    const name = node("th", "", p.name);
    name.scope = "row";
    const outcome = node("td");
    outcome.append(node("span", "ok", `${p.delivered}`), " / ", node("span", "wait", `${p.deferred}`), " / ", node("span", "bad", `${p.refused}`));
    const split = node("div", "split");
    split.setAttribute("aria-hidden", "true");
    for (const [k, c] of [["delivered", "--ok-fill"], ["deferred", "--wait-fill"], ["refused", "--bad-fill"]]) {
      if (!p[k]) continue;
      const part = node("span");
      part.style.flex = p[k];
      part.style.background = `var(${c})`;
      split.append(part);
    }
    outcome.append(split);
    const state = node("td");
    for (const [text, kind] of held.get(p.name) || []) state.append(node("span", "tag " + kind, text));
    const suspended = (held.get(p.name) || []).some(([t]) => t === "suspended");
    const result = node("td", grade(p.last_code), `${p.last_code} ${p.last_text}`);
    const actions = node("td", "nowrap");
    if (by === "destinations") actions.append(action("Explain", "Explain " + p.name, () => explain(p.name)), " ");
    actions.append(suspended
      ? action("Resume", "Resume " + p.name, () => confirm("Resume " + target + "?", "Mail goes again.", false, () => ask("/api/resume", { target })))
      : action("Suspend", "Suspend " + p.name, () => confirm("Suspend " + target + "?", "Nothing is dialled; the mail server keeps the mail.", true, (c) => ask("/api/suspend", { target, seconds: c.seconds, reason: c.reason }))));
    if (by === "destinations") {
      actions.append(" ", action("Flush", "Flush the cache of " + p.name, () => confirm("Flush " + p.name + "?", "What is remembered of the domain is forgotten and asked again.", false, () => ask("/api/flush", { target: p.name }))),
        " ", action("Trace", "Trace " + p.name, () => confirm("Trace " + p.name + "?", "The dialogue with its hosts is logged for ten minutes, without messages.", false, () => ask("/api/trace", { target: p.name, seconds: 600 }))));
    }
    row.append(name, node("td", "num", p.messages), outcome, node("td", "num", seconds(p.median_seconds)), state, result, actions);
    return row;
  }));
  if (!list.length) {
    const row = node("tr"), cell = node("td", "dim", "Nothing in the last hour.");
    cell.colSpan = 7;
    row.append(cell);
    $("peers").replaceChildren(row);
  }
  if (focused) [...$("peers").querySelectorAll("button")].find((b) => b.getAttribute("aria-label") === focused)?.focus();
}

function showLast(entries) {
  const failed = $("only-failed").checked;
  const list = entries.filter((e) => !failed || !e.code.startsWith("2"));
  $("last").replaceChildren(...list.map((e) => {
    const row = node("tr");
    row.append(node("td", "nowrap", new Date(e.at).toLocaleTimeString()), node("td", "", e.destination), node("td", "", e.host || ""),
      node("td", "nowrap " + grade(e.code), e.code), node("td", "nowrap", [e.tls, e.tls_level].filter(Boolean).join(" ")), node("td", "num", seconds(e.took_seconds)), node("td", "", e.text));
    return row;
  }));
}

function confirm(title, text, fields, f) {
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-fields").hidden = !fields;
  const dialog = $("confirm");
  dialog.returnValue = "no";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "yes") return;
    try {
      await f({ seconds: Number($("confirm-for").value), reason: $("confirm-reason").value });
    } catch (err) {
      live(false, err.message);
      return;
    }
    refresh();
  };
  dialog.showModal();
}

async function explain(domain) {
  $("domain").value = domain;
  const box = $("way");
  box.replaceChildren(node("p", "dim", "looking…"));
  $("h-explain").scrollIntoView({ block: "start" });
  try {
    draw(box, await ask(`/api/explain?domain=${encodeURIComponent(domain)}&connect=${$("connect").checked}`));
  } catch (err) {
    box.replaceChildren(node("p", "bad", err.message));
  }
}

$("explain-form").addEventListener("submit", (e) => { e.preventDefault(); explain($("domain").value.trim()); });
for (const [id, name] of [["by-destination", "destinations"], ["by-provider", "providers"]]) {
  $(id).addEventListener("click", () => {
    by = name;
    $("by-destination").setAttribute("aria-pressed", String(by === "destinations"));
    $("by-provider").setAttribute("aria-pressed", String(by === "providers"));
    if (last) showPeers(last);
  });
}
$("filter").addEventListener("input", () => { if (last) showPeers(last); });
$("only-failed").addEventListener("change", () => { if (last) showLast(last.last); });
refresh();
