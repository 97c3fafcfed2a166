// The third view: one domain. What a message there would meet, drawn as its way,
// what holds it up, and its last deliveries.
import { $, ask, clock, empty, fate, grade, keep, link, moment, node, seconds, set, span, tag, whole } from "/dom.js";
import { flush, resume, suspend, trace, untrace } from "/confirm.js";

let shown = "", asking = 0;

// choose shows a domain, or none.
export function choose(name) {
  $("domain").value = name;
  if (name === shown) return;
  shown = name;
  $("way").replaceChildren();
  $("domain-last").replaceChildren();
  delete $("domain-last").dataset.filled;
  if (name) explain();
}

const bare = () => shown.slice(shown.lastIndexOf("@") + 1).toLowerCase();

// explain asks the daemon, and draws what it says. Only the last question counts.
export async function explain() {
  if (!shown) return;
  const mine = ++asking, box = $("way");
  const query = new URLSearchParams({ domain: shown, connect: $("connect").checked, transport: $("transport").value });
  box.setAttribute("aria-busy", "true");
  box.replaceChildren(node("p", "dim busy", $("connect").checked || shown.includes("@") ? "Connecting to its hosts…" : "Looking it up…"));
  try {
    const [e, h] = await Promise.all([ask("/api/explain?" + query), ask("/api/history?" + new URLSearchParams({ what: bare(), failed: false, seconds: 3600 }))]);
    if (mine === asking) draw(box, e, h.entries[0]);
  } catch (err) {
    if (mine === asking) box.replaceChildren(node("p", "bad", err.message));
  }
  if (mine === asking) box.removeAttribute("aria-busy");
}

// load draws what changes by itself: actions, and the last deliveries.
export async function load(status) {
  const names = status.transports.filter((t) => !t.former).map((t) => t.name), select = $("transport"), was = select.value;
  if (names.join() !== [...select.options].map((o) => o.value).join()) {
    select.replaceChildren(...names.map((n) => { const o = node("option", "", n); o.value = n; return o; }));
    select.value = names.includes(was) ? was : names.includes("default") ? "default" : names[0] || "";
  }
  $("domain-more").hidden = !shown;
  empty("domain-none", !shown, "Type a domain, or choose one in another view, to see what a message there would meet; an address has its recipient asked for as well.");
  if (!shown) return;
  const name = bare(), stopped = status.suspended.find((x) => x.target === name), traced = status.traces.find((x) => x.domain === name);
  const busy = status.transports.flatMap((t) => t.deliveries).filter((d) => d.destination === name), oldest = busy.map((d) => d.since).sort()[0];
  empty("domain-busy", busy.length, `${whole(busy.length)} in progress, the oldest since ${clock(oldest)}.`);
  const what = { name, stopped: stopped && [stopped.reason, stopped.until], traced: traced && traced.until };
  keep($("domain-actions"), [what], (x) => x.name, (x) => {
    const p = node("p", "row");
    p.append(x.stopped ? tag("bad", "suspended") : "", x.traced ? tag("note", "traced until " + clock(x.traced)) : "",
      x.stopped ? act("Resume", () => resume(x.name)) : act("Suspend", () => suspend(x.name)), act("Flush", () => flush(x.name)),
      x.traced ? act("Stop tracing", () => untrace(x.name)) : act("Trace", () => trace(x.name)), link("All deliveries", "deliveries/" + encodeURIComponent(x.name)));
    return p;
  });
  const h = await ask("/api/history?" + new URLSearchParams({ what: name, failed: false, seconds: 0 }));
  if (name !== bare()) return;
  empty("domain-last-none", !h.entries.length, "None is remembered.");
  keep($("domain-last"), h.entries.slice(0, 10), (e) => e.id + e.code + e.text, (e) => node("li", "", node("span", "dim time", moment(e.at)), node("span", "to", e.host || "–"), node("span", "said", node("span", grade(e.code) + " code", e.code), " ", e.text), node("span", "dim num", seconds(e.took_seconds))));
}

function act(text, press) {
  const b = node("button", "", text);
  b.type = "button";
  b.setAttribute("aria-label", `${text} ${bare()}`);
  b.addEventListener("click", press);
  return b;
}

const good = { deliverable: "good", undeliverable: "poor" };
const of = (outcome) => good[outcome] || "unsure";
const color = { good: "ok", poor: "bad", unsure: "wait" };

// step is one part of the way: what it is called, what it came to, and facts.
function step(kind, title, result, ...lines) {
  const li = node("li", "step " + kind, node("h3", "", title), result ? node("p", "result " + color[kind], result) : "");
  for (const l of lines.flat().filter(Boolean)) li.append(typeof l === "string" ? node("p", "", l) : l);
  return li;
}

const words = (p) => `${p.status} ${p.text}` + (p.moment ? ` (${p.moment})` : "");
const problem = (p) => p && node("p", "bad", words(p));
const doubt = (text) => text && node("p", "wait", text);

function said(e) {
  if (e.outcome === "deliverable") return ["would be delivered", e.to ? `${e.to} is taken; the message itself can still be refused` : e.connected ? "no recipient was asked for" : "by look-ups alone; no connection was tried"];
  if (e.outcome !== "undeliverable") return ["cannot be determined", ""];
  return [e.error && e.error.status.startsWith("5") ? "would be refused" : "would be deferred", ""];
}

// draw draws an explanation, beside the last delivery: look-ups alone do not know
// what a handshake has shown.
function draw(box, e, before) {
  const blind = before && !before.code.startsWith("2") && !e.connected && e.outcome === "deliverable";
  const [what, why] = said(e), kind = blind ? "unsure" : of(e.outcome), way = node("ol", "way");
  const answer = node("p", "answer " + color[kind], node("strong", "", e.domain), ` ${what}`, why ? node("span", "dim", ` (${why})`) : "");
  answer.setAttribute("role", "status");
  box.replaceChildren(answer);
  if (blind) box.append(doubt(`But the last message there was ${fate(before.code)} at ${moment(before.at)}: ${before.code} ${before.text} – tick “connect to its hosts” to see whether that is still so.`));
  if (e.error) box.append(problem(e.error));
  for (const w of e.warnings || []) box.append(doubt(w));
  way.append(step("plain", "Message", e.to || "to " + e.domain, `transport ${e.transport}`, e.override && `override ${e.override}`, e.nexthop && `next hop ${e.nexthop}`, e.relay && `relay ${e.relay}`,
    e.fallback_relay && `fallback relay ${e.fallback_relay}` + (e.failing_since ? `, own hosts failing since ${moment(e.failing_since)}` : "")));
  if (e.held || e.limit) way.append(hold(e));
  way.append(route(e), policy(e));
  const hosts = node("ol", "hosts", ...e.hosts.map((h) => host(e, h)));
  hosts.setAttribute("aria-label", "Mail hosts, in the order of trying");
  box.append(way, node("h3", "dim", e.hosts.length ? "Mail hosts, in the order of trying" : "No host"), hosts);
}

function hold(e) {
  const l = e.limit;
  return step(e.held ? "poor" : "plain", e.held ? "Held" : "Limit", e.held ? words(e.held) : "free",
    l && `${whole(l.open)}${l.concurrency ? " of " + whole(l.concurrency) : ""} in use, ${whole(l.waiting)} waiting`, l && l.rate && `${Math.floor(l.tokens || 0)} of ${whole(l.rate)} left for ${span(l.period_seconds)}`);
}

function route(e) {
  const r = e.route, names = { mx: e.hosts.length === 1 ? "1 MX host" : `${e.hosts.length} MX hosts`, implicit: "no MX: the domain's own address", explicit: e.relay ? "the relay" : "the next hop", literal: "an address literal" };
  return step(!r.kind ? "poor" : r.signed ? "good" : "plain", "Route", r.kind ? names[r.kind] || r.kind : "none",
    r.kind && r.kind !== "literal" && (r.signed ? "DNSSEC-signed" + (e.mechanisms.dnssec ? "" : ", but mx_auth has no dnssec") : "not signed by DNSSEC"), r.canonical && `alias of ${r.canonical}`, (r.dropped || []).map((d) => doubt(`${d.host} is left out: ${d.reason}`)));
}

function policy(e) {
  const m = e.mtasts;
  if (!e.mechanisms.mtasts) return step("plain", "MTA-STS", "not used", "mx_auth has no mtasts");
  if (!m) return step("plain", "MTA-STS", "not asked");
  const error = m.error && doubt(`${m.failure}: ${m.error}`);
  if (m.state === "none") return step("plain", "MTA-STS", "no policy", error);
  if (m.state !== "policy") return step("unsure", "MTA-STS", "could not be fetched", error);
  return step(m.mode === "enforce" ? "good" : "plain", "MTA-STS", "mode " + m.mode, `mx ${m.mx.join(", ")}`, `id ${m.id}` + (m.record_id && m.record_id !== m.id ? ` (the record now says ${m.record_id})` : ""),
    m.expires && `until ${moment(m.expires)}`, error);
}

const rules = { none: "RFC 7435", dane: "RFC 7672", mtasts: "RFC 8461", requiretls: "RFC 8689", local_policy: "mxpolicyd.yaml", pin: "mxpolicyd.yaml", relay: "mxpolicyd.yaml" };
const hopes = { deliverable: "eligible", undeliverable: "skipped", unknown: "not known" };

function host(e, h) {
  const lines = [problem(h.error), problem(h.held), h.dead && node("p", "bad", h.dead.text + (h.dead.until ? `; tried again after ${clock(h.dead.until)}` : ""))];
  const place = (h.addresses.length ? h.addresses.join(", ") : "no address") + (h.addresses_signed ? ", DNSSEC-signed" : "") + (h.canonical ? `, as ${h.canonical}` : "");
  if (!h.error) lines.push(place, doubt(h.partial));
  const t = h.tlsa;
  if (t && t.state === "none") lines.push("no TLSA record");
  if (t && t.state === "failed") lines.push(node("p", "bad", "TLSA look-up failed" + (t.error ? `: ${t.error}` : "")));
  for (const r of (t && t.records) || []) lines.push(r.usable ? node("p", "mono", "TLSA " + r.record) : doubt(`TLSA ${r.record} not usable: ${r.reason}`));
  if (h.mtasts_match !== undefined) lines.push(h.mtasts_match ? "listed by the MTA-STS policy" : doubt("not listed by the MTA-STS policy"));
  const v = h.verdict;
  if (v && v.refusal) lines.push(node("p", "bad", `not contacted, ${words(v.refusal)} (${rules[v.rule] || v.rule})`));
  else if (v && v.rule === "none") lines.push(`${v.reason.replace(": " + v.need, "")}: opportunistic TLS (${rules.none})`);
  else if (v) lines.push(node("p", "", "requires ", node("strong", "", v.need), `: ${v.reason.replace(": " + v.need, "")} (${rules[v.rule] || v.rule})`));
  if (v && v.noted) lines.push(doubt(v.noted));
  if (v && v.pins) lines.push(`pins ${v.pins.join(", ")}`);
  if (h.provider && h.provider !== h.name) lines.push(`provider ${h.provider}`);
  if (h.hello) lines.push(doubt(`TLS hello ${h.hello}, as better ones failed lately`));
  if (h.idle_connections) lines.push(h.idle_connections === 1 ? "1 idle connection" : `${whole(h.idle_connections)} idle connections`);
  if (h.connection) lines.push(...connection(h.connection));
  return step(of(h.outcome), h.name + (e.route.kind === "mx" ? ` (${h.preference})` : ""), hopes[h.outcome] || h.outcome, lines);
}

// apart is a reason that the outcome does not name already.
const apart = (c, text) => text && !(c.error && c.error.text.includes(text)) && node("p", "bad", text);

function connection(c) {
  const lines = [c.error ? node("p", "bad", `connected: ${words(c.error)}`) : node("p", "ok", "connected: " + [c.via, c.cipher, c.group].filter(Boolean).join(", "))];
  if (c.accepted) lines.push(node("p", "ok", c.accepted));
  lines.push(doubt(c.tls_error && `STARTTLS failed: ${c.tls_error}`), doubt(c.testing_error), c.dane_match && `certificate matches ${c.dane_match}`, apart(c, c.dane_error), apart(c, c.pin_error),
    c.webpki ? "certificate valid for the name" : c.webpki_error && `not valid by WebPKI: ${c.webpki_error}`);
  for (const x of (c.chain || []).slice(0, 3)) lines.push(node("p", "dim", `${x.subject || (x.names || []).join(", ")}, by ${x.issuer}, until ${moment(x.not_after)}, ${x.key}`));
  return lines;
}

$("explain-form").addEventListener("submit", (e) => {
  e.preventDefault();
  const name = $("domain").value.trim().toLowerCase();
  if (name === shown) explain();
  else location.hash = "#domain/" + encodeURIComponent(name);
});
for (const id of ["connect", "transport"]) $(id).addEventListener("change", () => { if (shown) explain(); });
