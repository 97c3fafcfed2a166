// The second view: the last deliveries, one line each, with all that is
// remembered of one behind it.
import { $, ask, domainLink, empty, grade, keep, moment, node, seconds, set, whole } from "/dom.js";

const open = new Set(); // rows with their details

// choose fills the filter, as a link from another view does.
export function choose(what) { $("what").value = what; }

// load asks for what the filter says, and draws it.
export async function load() {
  const query = new URLSearchParams({ what: $("what").value.trim(), failed: $("only-failed").checked, seconds: $("since").value });
  const h = await ask("/api/history?" + query);
  if (query.get("what") !== $("what").value.trim()) return; // somebody types
  const filtered = query.get("what") || query.get("failed") === "true" || query.get("seconds") !== "0";
  empty("deliveries-none", !h.entries.length, filtered ? "No delivery matches." : "Nothing is remembered yet.");
  set($("deliveries-count"), h.entries.length ? `${whole(h.entries.length)} ${h.more ? "of " + whole(h.entries.length + h.more) : ""} results, the newest first` : "");
  keep($("deliveries"), h.entries, (e) => e.id + e.code + e.text, row);
}

function row(e) {
  const key = e.id + e.code + e.text, body = node("tbody"), tr = node("tr"), more = node("tr", "details");
  const cell = (name, className, ...children) => { const c = node("td", className, ...children); c.dataset.label = name; c.setAttribute("role", "cell"); return c; };
  const toggle = node("button", "toggle", "›");
  toggle.type = "button";
  toggle.setAttribute("aria-label", `Details of ${moment(e.at)} to ${e.destination || "nowhere"}`);
  const turn = (yes) => { toggle.setAttribute("aria-expanded", String(yes)); more.hidden = !yes; };
  toggle.addEventListener("click", () => { open[open.has(key) ? "delete" : "add"](key); turn(open.has(key)); });
  tr.append(cell("", "first", toggle), cell("Time", "nowrap", moment(e.at)), cell("Domain", "to", domainLink(e.destination)), cell("Host", "host", e.host || "–"),
    cell("Result", "result", node("span", grade(e.code) + " code", e.code), " ", node("span", "said", e.text)), cell("TLS", "nowrap", [e.tls, e.tls_level].filter(Boolean).join(", ") || "–"), cell("Took", "num", seconds(e.took_seconds)));
  const all = node("td", "", facts(e));
  all.colSpan = 7;
  all.setAttribute("role", "cell");
  more.append(all);
  turn(open.has(key));
  body.setAttribute("role", "rowgroup");
  tr.setAttribute("role", "row");
  more.setAttribute("role", "row");
  body.append(tr, more);
  return body;
}

// facts lists the rest of an entry, and its time by phase as a bar.
function facts(e) {
  const list = node("dl", "facts wide");
  const fact = (k, v) => { if (v) list.append(node("div", "", node("dt", "", k), node("dd", "", v))); };
  fact("queue id", e.queue_id);
  fact("our id", e.id);
  fact("transport", e.transport);
  fact("from", e.sender === undefined ? "" : e.sender || "<>");
  fact("to", (e.recipients || []).join(", ") + (e.count > 1 ? ` (${whole(e.count)} recipients)` : ""));
  fact("provider", e.provider);
  fact("relay", e.via);
  fact("address", e.address && e.address + (e.source ? " from " + e.source : ""));
  fact("levels", e.tls_level && `TLS ${e.tls_level}, MX ${e.mx_level || "none"}`);
  fact("connection", e.address && (e.reused ? "was open" : "new"));
  const box = node("div", "", list), phases = (e.phases || []).filter((p) => p.took_seconds > 0);
  if (phases.length) {
    const bar = node("div", "phases");
    bar.setAttribute("aria-hidden", "true");
    phases.forEach((p, i) => { const part = node("span", "p-" + (i % 6)); part.style.flexGrow = p.took_seconds * 1e6; bar.append(part); });
    const legend = node("p", "legend", ...phases.map((p, i) => node("span", "", node("span", "key p-" + (i % 6)), `${p.name.replaceAll("_", " ")} ${seconds(p.took_seconds)}`)));
    box.append(bar, legend);
  }
  return box;
}
