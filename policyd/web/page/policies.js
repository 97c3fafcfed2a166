// The fourth view: the MTA-STS policies that are remembered, and the hosts whose
// TLS begins plainer than with others.
import { $, ask, domainLink, empty, keep, moment, node, now, set, span, whole } from "/dom.js";

let asked = "", at = 0;

// load asks for the policies, when the filter changed or they are old, and
// draws them with what the status says of hosts.
export async function load(status) {
  if (status) hellos(status);
  const what = $("policy-filter").value.trim();
  if (asked === what && Date.now() - at < 10_000) return;
  const p = await ask("/api/policies?" + new URLSearchParams({ what }));
  [asked, at] = [what, Date.now()];
  empty("policies-none", !p.policies.length, p.all ? "No domain has that in it." : "No policy is remembered: no domain that mail went to has one.");
  set($("policies-count"), p.policies.length ? `${whole(p.policies.length)} of ${whole(p.all)} policies` : "");
  keep($("policies"), p.policies.map((x) => ({ ...x, minute: Math.floor(at / 60_000) })), (x) => x.domain + (x.dir || ""), (x) => {
    const row = node("tr");
    const cell = (name, className, ...children) => { const c = node("td", className, ...children); c.dataset.label = name; c.setAttribute("role", "cell"); return c; };
    const head = node("th", "", domainLink(x.domain));
    head.scope = "row";
    head.setAttribute("role", "rowheader");
    const left = x.expires ? (new Date(x.expires) - now()) / 1000 : 0;
    row.setAttribute("role", "row");
    row.append(head, cell("Mode", x.mode === "enforce" ? "ok" : "wait", x.mode || "–"), cell("Hosts", "said", (x.mx || []).join(", ")), cell("Id", "", x.id + (x.record_id && x.record_id !== x.id ? ` (the record now says ${x.record_id})` : "")),
      cell("Fetched", "nowrap", x.fetched ? moment(x.fetched) : "–"), cell("Expires", "nowrap" + (left < 0 ? " bad" : ""), left < 0 ? "expired" : "in " + span(left)), cell("Trouble", x.error ? "wait" : "dim", x.error ? `${x.failure}: ${x.error}` : "none"));
    return row;
  });
}

// fresh has the next load ask again.
export function fresh() { at = 0; }

function hellos(s) {
  const list = s.transports.flatMap((t) => t.hellos.map((h) => ({ ...h, transport: t.name })));
  empty("hellos-none", !list.length, "None: every host takes the hello that offers all.");
  keep($("hellos"), list, (h) => h.transport + h.host + h.floor, (h) => node("li", "", node("strong", "", h.host), ` ${h.hello} (TLS ${h.floor}), until ${moment(h.until)}`));
}
