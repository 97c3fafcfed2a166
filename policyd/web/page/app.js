// The page: which view is seen, and what the daemon says every two seconds while
// it is.
import { $, ask, clock, empty, itIs, node, set, zone } from "/dom.js";
import { onChange } from "/confirm.js";
import * as overview from "/overview.js";
import * as deliveries from "/deliveries.js";
import * as domain from "/domain.js";
import * as policies from "/policies.js";

const EVERY = 2000;
const titles = { overview: "Overview", deliveries: "Deliveries", domain: "Domain", policies: "Policies" };
let view = "overview", status = null, timer = null, at = 0, round = 0;

// route shows the view that the address names: #deliveries/example.org.
function route() {
  const [name, ...rest] = location.hash.slice(1).split("/"), what = decodeURIComponent(rest.join("/"));
  const before = view;
  view = titles[name] ? name : "overview";
  for (const v of Object.keys(titles)) {
    $("view-" + v).hidden = v !== view;
    if (v === view) $("to-" + v).setAttribute("aria-current", "page");
    else $("to-" + v).removeAttribute("aria-current");
  }
  document.title = `${titles[view]} – mxpolicyd`;
  if (view === "deliveries") deliveries.choose(what);
  if (view === "domain") domain.choose(what);
  if (view !== before || rest.length) scrollTo({ top: 0, behavior: "instant" });
  refresh();
}

// refresh asks for what the view shows.
async function refresh() {
  const mine = ++round;
  clearTimeout(timer);
  try {
    const o = await ask("/api/overview");
    if (mine !== round) return;
    status = o.status;
    itIs(o.at);
    set($("version"), status.version);
    alarms(status);
    if (view === "overview") overview.show(o);
    if (view === "deliveries") await deliveries.load();
    if (view === "domain") await domain.load(status);
    if (view === "policies") await policies.load(status);
    if (mine !== round) return;
    at = new Date(o.at);
    live("");
  } catch (err) {
    if (mine !== round) return;
    live(err.message);
  }
  if (!document.hidden) timer = setTimeout(refresh, EVERY);
}

// live says whether what is seen is what is.
function live(trouble) {
  document.body.classList.toggle("stale", Boolean(trouble));
  $("dot").className = "dot " + (trouble ? "down" : "up");
  set($("live-text"), trouble ? (at ? "not live: this was at " + clock(at) : "not live") : "live");
  set($("live-at"), trouble ? "" : `${clock(at)} ${zone()}`);
  empty("trouble", Boolean(trouble), trouble);
}

// alarms are what is wrong with the daemon itself.
function alarms(s) {
  const list = (s.warnings || []).slice();
  if (s.rejected) list.push("The configuration was changed and has mistakes; the one before is in force. mxpolicyd check-config names them.");
  if (s.overdue) list.push(`${s.overdue} deliveries should have ended long ago.`);
  if (s.messages >= s.max_deliveries) list.push("As many messages are in progress as max_deliveries allows; more wait.");
  const box = $("warnings"), text = list.join("\n");
  if (box.dataset.text === text) return;
  box.dataset.text = text;
  box.replaceChildren(...list.map((l) => node("p", "", l)));
}

onChange(() => { policies.fresh(); if (view === "domain") domain.explain(); refresh(); });
addEventListener("hashchange", route);
$("skip").addEventListener("click", (e) => { e.preventDefault(); $("main").focus(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; if (view === "overview") overview.again(); } });
for (const id of ["only-failed", "since"]) $(id).addEventListener("change", refresh);
for (const id of ["what", "policy-filter"]) $(id).addEventListener("input", refresh);
for (const id of ["deliveries-form", "policies-form"]) $(id).addEventListener("submit", (e) => e.preventDefault());
route();
