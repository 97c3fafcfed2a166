// The first view: the last hour at a glance.
import { $, bytes, button, clock, domainLink, empty, fate, grade, keep, link, moment, node, now, seconds, set, span, tag, whole } from "/dom.js";
import { latency, outcomes } from "/chart.js";
import { resume, suspend, untrace } from "/confirm.js";
import * as holds from "/holds.js";

let by = "destinations", last = null;

// show draws what the daemon said.
export function show(o) {
  last = o;
  const s = o.status, held = holds.of(s);
  tiles(o);
  const known = s.history.oldest && (s.history.entries >= s.history.max_entries || s.history.bytes > 0.95 * s.history.max_bytes) ? new Date(s.history.oldest) : null;
  outcomes($("chart-outcome"), $("read-outcome"), o.minutes, known);
  latency($("chart-latency"), $("read-latency"), o.minutes, known);
  empty("history-short", known && o.minutes.some((m) => new Date(m.at) < known),
    `The history is full (${whole(s.history.entries)} results, ${bytes(s.history.bytes)}) and reaches back to ${moment(known)}: older figures are missing. history.entries and history.memory widen it.`);
  holdList(held, s.traces);
  peers(o, held);
  levels(o.levels || []);
  transports(s, held);
  memory(s);
  feed(o.last);
}

export const again = () => { if (last) show(last); };

function tiles(o) {
  const s = o.status, t = o.total || { messages: 0, delivered: 0, deferred: 0, refused: 0, median_seconds: 0, slowest_seconds: 0, reused: 0 };
  const share = (n) => (t.messages ? ((100 * n) / t.messages).toFixed(n && n < t.messages && n * 1000 > t.messages ? 1 : 0) + " %" : "");
  const idle = s.transports.reduce((a, x) => a + x.idle_connections, 0);
  const list = [
    ["delivered", whole(t.delivered), share(t.delivered), "ok"], ["deferred", whole(t.deferred), share(t.deferred), t.deferred ? "wait" : ""],
    ["refused", whole(t.refused), share(t.refused), t.refused ? "bad" : ""],
    ["median time", seconds(t.median_seconds), t.messages ? "slowest " + seconds(t.slowest_seconds) : "", ""],
    ["connections reused", t.messages ? Math.round((100 * t.reused) / t.messages) + " %" : "–", whole(idle) + " idle now", ""],
    ["in progress", whole(s.messages), "of " + whole(s.max_deliveries), s.overdue || s.messages >= s.max_deliveries ? "wait" : ""],
  ];
  keep($("tiles"), list, (x) => x[0], ([name, value, more, c]) => {
    const div = node("div", c);
    div.append(node("dt", "", name), node("dd", "", value, node("span", "more", more)));
    return div;
  });
  for (const e of $("tiles").children) e.classList.remove("new");
}

function holdList(held, traces) {
  const all = [...held, ...traces.map((t) => ({ kind: "traced", grade: "note", target: t.domain, what: "domain", name: t.domain, text: "the dialogue with its hosts is in the daemon's log", until: t.until, untrace: t.domain }))];
  const count = held.length;
  set($("hold-count"), count ? String(count) : "");
  empty("holds-none", !all.length, "Nothing. No host is unreachable, and nothing is paused, suspended or at a limit.");
  keep($("holds"), all, holds.keyOf, (x) => {
    const li = node("li", "hold " + x.grade);
    const name = x.what === "domain" ? domainLink(x.name) : x.what === "transport" ? x.name : link(x.name, "deliveries/" + encodeURIComponent(x.name));
    const head = node("p", "row", tag(x.grade, x.kind), node("span", "to", x.what === "domain" ? "" : x.what + " ", node("strong", "", name)));
    const when = node("p", "dim when");
    if (x.since) when.append("since " + moment(x.since));
    if (x.until) when.append(when.textContent ? ", until " : "until ", moment(x.until));
    else if (x.resume) when.append(", until it is resumed");
    if (x.resume) head.append(button("Resume", "Resume " + x.resume, () => resume(x.resume)));
    if (x.untrace) head.append(button("Stop", "Stop tracing " + x.untrace, () => untrace(x.untrace)));
    li.append(head, node("p", "said", x.text));
    if (when.textContent) li.append(when);
    return li;
  });
}

function peers(o, held) {
  const filter = $("filter").value.trim().toLowerCase();
  const items = (o[by] || []).filter((p) => p.name.includes(filter)).map((p) => ({ ...p, by, held: holds.on(held, p, by).map((h) => [h.kind, h.grade, h.resume]) }));
  // What is held up first, then what mostly fails, then by how much mail goes.
  const trouble = (p) => (p.held.length ? 2 : p.deferred + p.refused >= p.delivered ? 1 : 0);
  items.sort((a, b) => trouble(b) - trouble(a) || b.messages - a.messages || (a.name < b.name ? -1 : 1));
  empty("peers-none", !items.length, filter ? "No name has that in it." : "No mail in the last hour.");
  keep($("peers"), items, (p) => p.by + " " + p.name, (p) => {
    const row = node("tr"), target = p.by === "providers" ? "provider:" + p.name : p.name;
    const cell = (name, className, ...children) => { const e = node("td", className, ...children); e.dataset.label = name; e.setAttribute("role", "cell"); return e; };
    const head = node("th", "", p.by === "providers" ? link(p.name, "deliveries/" + encodeURIComponent(p.name)) : domainLink(p.name));
    head.scope = "row";
    head.setAttribute("role", "rowheader");
    const states = node("span", "states", ...p.held.map(([kind, g]) => tag(g, kind)));
    if (p.held.length) head.append(states);
    const split = node("span", "split");
    split.setAttribute("aria-hidden", "true");
    for (const [k, c] of [["delivered", "b-ok"], ["deferred", "b-wait"], ["refused", "b-bad"]]) {
      if (!p[k]) continue;
      const part = node("span", c);
      part.style.flexGrow = p[k];
      split.append(part);
    }
    const result = cell("Last result", "result");
    result.append(node("span", "dim when", clock(p.last_at)), " ", node("span", grade(p.last_code) + " code", p.last_code), " ", node("span", "said", p.last_text));
    const actions = cell("Actions", "actions");
    const stopped = p.held.find(([, , r]) => r === target);
    actions.append(stopped ? button("Resume", "Resume " + target, () => resume(target)) : button("Suspend", "Suspend " + target, () => suspend(target)));
    row.setAttribute("role", "row");
    row.append(head, cell("Delivered", "num" + (p.delivered ? " ok" : " dim"), whole(p.delivered)), cell("Deferred", "num" + (p.deferred ? " wait" : " dim"), whole(p.deferred)), cell("Refused", "num" + (p.refused ? " bad" : " dim"), whole(p.refused)),
      cell("Share", "share", split), cell("Median", "num", seconds(p.median_seconds)), result, actions);
    return row;
  });
}

// grades of the levels of TLS and MX, the best first.
function strength(name) {
  if (name.startsWith("authenticated")) return name.endsWith("MX none") ? "l-3" : "l-4";
  return name.startsWith("encrypted") ? "l-2" : "l-1";
}

function levels(list) {
  const all = list.reduce((a, l) => a + l.messages, 0);
  empty("levels-none", !all, "Nothing was delivered in the last hour.");
  $("levels-bar").hidden = !all;
  const order = [...list].sort((a, b) => strength(b.name).localeCompare(strength(a.name)) || b.messages - a.messages);
  $("levels-bar").replaceChildren(...order.map((l) => { const e = node("span", strength(l.name)); e.style.flexGrow = l.messages; return e; }));
  keep($("levels"), order.map((l) => ({ ...l, all })), (l) => l.name, (l) => {
    const li = node("li", "", node("span", "key " + strength(l.name)), node("span", "", l.name.startsWith("none") ? "plaintext or unsafe TLS" + l.name.slice(4) : l.name), node("span", "num", whole(l.messages)), node("span", "num dim", ((100 * l.messages) / l.all).toFixed(1) + " %"));
    li.querySelector(".key").setAttribute("aria-hidden", "true");
    return li;
  });
}

function transports(s, held) {
  keep($("transports"), s.transports.map((t) => ({ ...t, idle: null, dead: null, hellos: null, slowed: null, stopped: held.some((h) => h.resume === "transport:" + t.name) })), (t) => t.name + (t.former ? " former" : ""), (t) => {
    const target = "transport:" + t.name, li = node("li");
    const head = node("p", "row", node("strong", "", t.name), t.former ? tag("note", "former") : "", t.stopped ? tag("bad", "suspended") : "", node("span", "grow"),
      t.former ? "" : t.stopped ? button("Resume", "Resume " + target, () => resume(target)) : button("Suspend", "Suspend " + target, () => suspend(target)));
    li.append(head, node("p", "dim", `${whole(t.deliveries.length)} in progress, ${whole(t.idle_connections)} idle connections`));
    for (const l of t.limits) {
      const scope = "limit of " + (l.override ? l.override + ", " : "") + l.scope.replace("_", " ");
      li.append(node("p", l.waiting ? "wait" : "dim", `${scope}: ${whole(l.open)} open, ${whole(l.waiting)} waiting` + (l.late ? `, ${whole(l.late)} deferred since the start` : "")));
    }
    return li;
  });
}

function memory(s) {
  const r = s.resolver, asked = r.hits + r.misses;
  const facts = [
    ["running since", moment(s.started) + " (" + span((now() - new Date(s.started)) / 1000) + ")"], ["configuration of", moment(s.configured)],
    ["resolver", r.servers.join(", ")], ["DNS from memory", asked ? ((100 * r.hits) / asked).toFixed(1) + " % of " + whole(asked) : "–"],
    ["history", `${whole(s.history.entries)} of ${whole(s.history.max_entries)} results`],
  ];
  keep($("facts"), facts, (f) => f[0], ([k, v]) => node("div", "", node("dt", "", k), node("dd", "", v)));
  for (const e of $("facts").children) e.classList.remove("new");
}

function feed(entries) {
  empty("feed-none", !entries.length, "No mail in the last hour.");
  keep($("feed"), entries, (e) => e.id + e.code + e.text, (e) => {
    const li = node("li", "", node("span", "dim time", clock(e.at)), node("span", "fate " + grade(e.code), fate(e.code)), node("span", "to", domainLink(e.destination) || e.host || "–"),
      node("span", "said", node("span", grade(e.code) + " code", e.code), " ", e.text), node("span", "dim num", seconds(e.took_seconds)));
    return li;
  });
}

for (const [id, name] of [["by-destination", "destinations"], ["by-provider", "providers"]]) {
  $(id).addEventListener("click", () => {
    by = name;
    delete $("peers").dataset.filled;
    $("by-destination").setAttribute("aria-pressed", String(by === "destinations"));
    $("by-provider").setAttribute("aria-pressed", String(by === "providers"));
    again();
  });
}
$("filter").addEventListener("input", () => { delete $("peers").dataset.filled; again(); });
