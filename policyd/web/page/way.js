// The way that a message to a domain would take, as steps from left to right
// and the hosts below, each with its verdict.

function node(name, className, ...children) {
  const e = document.createElement(name);
  if (className) e.className = className;
  e.append(...children.filter((c) => c !== null && c !== undefined && c !== ""));
  return e;
}

function step(kind, title, ...lines) {
  return node("li", "step " + kind, node("h3", "", title), ...lines.filter(Boolean).map((l) => (typeof l === "string" ? node("p", "", l) : l)));
}

const arrow = () => {
  const a = node("li", "arrow", "→");
  a.setAttribute("aria-hidden", "true");
  return a;
};

const kinds = { deliverable: "good", undeliverable: "poor", unknown: "unsure" };
const words = { deliverable: "eligible", undeliverable: "not eligible", unknown: "not known" };

function host(h) {
  const lines = [node("p", "outcome " + ({ good: "ok", poor: "bad" }[kinds[h.outcome]] || "wait"), words[h.outcome] || h.outcome)];
  lines.push(`preference ${h.preference}` + (h.addresses.length ? `, ${h.addresses.join(", ")}` : "") + (h.addresses_signed ? " (signed)" : ""));
  if (h.tlsa && h.tlsa.state === "present") lines.push(`TLSA: ${(h.tlsa.records || []).length} at ${h.tlsa.base}`);
  if (h.tlsa && h.tlsa.state === "failed") lines.push(`TLSA look-up failed: ${h.tlsa.error || ""}`);
  if (h.verdict) lines.push(`needs ${h.verdict.need} (${h.verdict.rule}): ${h.verdict.reason}`);
  if (h.verdict && h.verdict.refusal) lines.push(`${h.verdict.refusal.status} ${h.verdict.refusal.text}`);
  if (h.dead) lines.push(h.dead.text);
  if (h.error) lines.push(`${h.error.status} ${h.error.text}`);
  if (h.connection) {
    const c = h.connection;
    lines.push(`connected: ${c.tls_version || "plaintext"}, TLS level ${c.tls_level}` + (c.dane_match ? `, DANE ${c.dane_match}` : c.webpki ? ", certificate valid" : ""));
    if (c.error) lines.push(`${c.error.status} ${c.error.text}`);
  }
  return step(kinds[h.outcome] || "unsure", h.name, ...lines);
}

// draw puts an explanation into a box.
export function draw(box, e) {
  const top = node("ol", "");
  const r = e.route;
  top.append(step("good", e.domain, `transport ${e.transport}`, e.override ? `override ${e.override}` : ""));
  top.append(arrow());
  top.append(step(r.signed ? "good" : "unsure", "Route", r.kind ? `by ${r.kind === "mx" ? "MX" : r.kind}` : "no route", r.signed ? "signed (DNSSEC)" : "not signed",
    ...(r.dropped || []).map((d) => `${d.host}: ${d.reason}`)));
  top.append(arrow());
  const m = e.mtasts;
  top.append(step(m && m.state === "policy" ? "good" : m && m.state === "failed" ? "poor" : "unsure", "MTA-STS",
    !m ? "not asked" : m.state === "policy" ? `mode ${m.mode}, id ${m.id}` : m.state === "failed" ? `failed: ${m.error || m.failure || ""}` : "no policy",
    m && m.mx ? m.mx.join(", ") : ""));
  if (e.limit) {
    top.append(arrow());
    top.append(step("unsure", "Limit", `${e.limit.open} open, ${e.limit.waiting} waiting`));
  }
  top.append(arrow());
  top.append(step(kinds[e.outcome] || "unsure", "Outcome", node("p", "outcome", e.outcome === "deliverable" ? "would be delivered" : e.outcome === "undeliverable" ? "would not be delivered" : "not known"),
    e.error ? `${e.error.status} ${e.error.text}` : ""));
  const hosts = node("ol", "hosts", ...e.hosts.map(host));
  hosts.setAttribute("aria-label", "Hosts in the order of trying");
  box.replaceChildren(top, node("p", "dim", e.hosts.length ? "Hosts, in the order of trying:" : "No hosts."), hosts);
}
