// Nothing is changed without a question. The dialog stays until the daemon has
// said yes, and shows why if it does not.
import { $, ask, set } from "/dom.js";

let go = null, changed = () => {}, pressed = null;

// onChange has f called when something was changed.
export function onChange(f) { changed = f; }

// toast says what was done.
export function toast(text) {
  set($("toast-text"), text);
  $("toast").classList.add("shown");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => $("toast").classList.remove("shown"), 8000);
}

// question opens the dialog: what is done and to what, what that means, whether
// it asks for how long and why, and how it is done. What do gives is said.
function question({ verb, what, text, fields, act }) {
  const dialog = $("confirm");
  set($("confirm-title"), `${verb} ${what}?`);
  set($("confirm-text"), text);
  $("confirm-for").value = fields === "trace" ? "600" : "3600";
  $("confirm-reason").value = "";
  for (const e of dialog.querySelectorAll("[data-for]")) e.hidden = !fields || !e.dataset.for.split(" ").includes(fields);
  for (const o of $("confirm-for").options) o.hidden = fields === "trace" && (o.value === "0" || Number(o.value) > 86400);
  $("confirm-error").textContent = "";
  set($("confirm-yes"), verb);
  $("confirm-yes").className = verb === "Suspend" ? "strong danger" : "strong";
  $("confirm-yes").disabled = false;
  go = act;
  pressed = document.activeElement && document.activeElement.getAttribute("aria-label");
  dialog.showModal();
  (fields === "suspend" ? $("confirm-reason") : $("confirm-yes")).focus();
}

// The focus goes back to the button that was pressed, even if its row was drawn
// anew meanwhile.
$("confirm").addEventListener("close", () => {
  if (document.activeElement === document.body && pressed) [...document.querySelectorAll("button")].find((e) => e.getAttribute("aria-label") === pressed)?.focus();
});
$("confirm-no").addEventListener("click", () => $("confirm").close());
$("confirm-form").addEventListener("submit", async (e) => {
  e.preventDefault();
  $("confirm-yes").disabled = true;
  try {
    const said = await go({ seconds: Number($("confirm-for").value), reason: $("confirm-reason").value.trim() });
    $("confirm").close();
    toast(said);
    changed();
  } catch (err) {
    set($("confirm-error"), err.message);
  }
  $("confirm-yes").disabled = false;
});

const long = (seconds) => {
  const o = [...$("confirm-for").options].find((o) => Number(o.value) === seconds);
  return o && seconds ? "for " + o.textContent : "until it is resumed";
};

// name writes a target as people say it.
export function name(target) {
  const [kind, rest] = target.includes(":") ? target.split(/:(.*)/) : ["", target];
  return kind ? `${kind} ${rest}` : rest;
}

export function suspend(target) {
  question({
    verb: "Suspend", what: name(target), fields: "suspend",
    text: "No host is contacted for it. Each message is deferred with 4.3.2 and your reason, and stays in the mail server's queue.",
    act: async (c) => { await ask("/api/suspend", { target, seconds: c.seconds, reason: c.reason }); return `${name(target)} is suspended ${long(c.seconds)}.`; },
  });
}

export function resume(target) {
  question({
    verb: "Resume", what: name(target),
    text: "Mail goes again, as soon as the mail server tries it.",
    act: async () => { await ask("/api/resume", { target }); return `${name(target)} is resumed.`; },
  });
}

export function flush(target) {
  question({
    verb: "Flush", what: target,
    text: "The DNS answers, the MTA-STS policy and the TLS hellos that are remembered of it and the names below it are forgotten. The next message asks again.",
    act: async () => {
      const f = await ask("/api/flush", { target });
      return `${target} is flushed: ${f.dns} DNS answers, ${f.mtasts} MTA-STS policies, ${f.hellos} TLS hellos.`;
    },
  });
}

export function trace(target) {
  question({
    verb: "Trace", what: target, fields: "trace",
    text: "The SMTP dialogue with its hosts goes to the daemon's log, with TLS and certificates, but without messages.",
    act: async (c) => { await ask("/api/trace", { target, seconds: c.seconds }); return `${target} is traced ${long(c.seconds)}: see mxpolicyd's log.`; },
  });
}

export function untrace(target) {
  question({
    verb: "Stop", what: `tracing ${target}`, text: "Its dialogue is no longer logged.",
    act: async () => { await ask("/api/untrace", { target }); return `${target} is no longer traced.`; },
  });
}
