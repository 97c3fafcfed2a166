// What holds mail up: gathered from the daemon's status, in the order in which
// an administrator wants to know of it.

import { clock, now, whole } from "/dom.js";

// late is when a delivery under way is worth a word, in seconds.
const late = 30;

// of lists it. Each has a kind, a target, a text, since and until when, and
// what it holds: a domain, a provider, a host or a transport.
export function of(s) {
  const list = [];
  for (const x of s.suspended) {
    const [kind, name] = x.target.includes(":") ? x.target.split(/:(.*)/) : ["domain", x.target];
    list.push({ kind: "suspended", grade: "bad", target: x.target, what: kind, name, text: x.reason || "no reason was given", since: x.since, until: x.until, resume: x.target });
  }
  for (const x of s.pauses) {
    const what = x.scope === "domain" ? "domain" : "provider";
    list.push({
      kind: x.trying ? "trying again" : "paused", grade: "wait", target: (what === "provider" ? "provider:" : "") + x.name, what, name: x.name,
      only: x.source, text: (x.source ? `only from ${x.source}; ` : "") + x.reply, since: x.since, until: x.until,
    });
  }
  for (const t of s.transports) {
    for (const x of t.dead) list.push({ kind: x.trying ? "trying again" : "unreachable", grade: "bad", target: x.host, what: "host", name: bare(x.host), text: x.text.replace(x.host + " ", "") });
  }
  for (const t of s.transports) {
    for (const x of t.slowed) {
      list.push({ kind: "slowed", grade: "wait", target: x.host, what: "host", name: bare(x.host), text: `complained of too many connections: ${x.open} of ${x.allowed} open, ${x.waiting} waiting` });
    }
    for (const x of t.limits) {
      if (!x.waiting) continue;
      const [most] = byNumber(t.deliveries, (d) => d.destination);
      list.push({
        kind: "at its limit", grade: "wait", target: "transport:" + t.name, only: x.override + x.scope, what: "transport", name: t.name,
        text: `${whole(x.waiting)} waiting for the limit of ${x.scope.replace("_", " ")}` + (most ? `; most in progress: ${whole(most[1].length)} to ${most[0]}` : ""),
      });
    }
    for (const [host, all] of byNumber(t.deliveries.filter((d) => d.host && now() - new Date(d.since) > late * 1000), (d) => d.host).slice(0, 5)) {
      const n = all.length;
      list.push({ kind: "slow", grade: "wait", target: host, only: t.name, what: "host", name: bare(host), domains: [...new Set(all.map((d) => d.destination))], text: `${whole(n)} ${n === 1 ? "message" : "messages"} to ${all[0].destination} in progress, the oldest since ${clock(all[0].since)}` });
    }
  }
  const seen = new Set(); // transports share hosts
  return list.filter((x) => !seen.has(keyOf(x)) && seen.add(keyOf(x)));
}

const bare = (host) => host.replace(/:\d+$/, ""); // without its port

// byNumber groups deliveries, the largest group first.
function byNumber(deliveries, of) {
  const groups = new Map();
  for (const d of deliveries) groups.set(of(d), [...(groups.get(of(d)) || []), d]);
  return [...groups].sort((a, b) => b[1].length - a[1].length);
}

// keyOf tells one from another.
export const keyOf = (x) => [x.kind, x.target, x.only || ""].join(" ");

// on gives those that hold a destination or a provider, by its summary.
export function on(list, p, by) {
  return list.filter((x) => {
    if (by === "providers") return x.what === "provider" ? x.name === p.name : x.what === "host" && x.name === p.last_host;
    if (x.domains) return x.domains.includes(p.name);
    return (x.what === "domain" && x.name === p.name) || (x.what === "provider" && p.last_provider && x.name === p.last_provider) || (x.what === "host" && x.name === p.last_host);
  });
}
