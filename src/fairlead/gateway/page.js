"use strict";
const $ = id => document.getElementById(id);
const all = (what, from = document) => [...from.querySelectorAll(what)];
const SVG = "http://www.w3.org/2000/svg";

// Everything that comes from outside goes through text nodes: nothing is ever read as HTML.
function make(tag, props, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props || {})) {
    if (!known(v)) continue;
    if (k === "class") e.className = v;
    else if (k === "style") Object.assign(e.style, v);
    else if (k === "on") e.addEventListener("click", v);
    else e.setAttribute(k, v);
  }
  e.append(...children.filter(c => known(c) && c !== ""));
  return e;
}
function draw(tag, props, ...children) {
  const e = document.createElementNS(SVG, tag);
  for (const [k, v] of Object.entries(props || {})) k === "style" ? Object.assign(e.style, v) : e.setAttribute(k, v);
  e.append(...children);
  return e;
}

// ------------------------------------------------------------------ figures in words
const known = x => x !== null && x !== undefined;
const whole = new Intl.NumberFormat("en-US");
const count = (n, one, many = one + "s") => `${whole.format(n)} ${n === 1 ? one : many}`;
const percent = (x, d = 0) => (100 * x).toFixed(d) + "%";
// A share that is neither nothing nor all is never rounded to either.
const share = x => x > 0 && x < .005 ? "<1%" : x < 1 && x > .995 ? ">99%" : percent(x);
const points = x => { const n = Math.round(100 * Math.abs(x)); return `${n === 0 ? "" : x > 0 ? "+" : "\u2212"}${n} point${n === 1 ? "" : "s"}`; };
function usd(x) {
  if (!known(x)) return "unknown";
  if (x === 0) return "$0";
  if (x < 0) return "\u2212" + usd(-x);
  if (x >= 1000) return "$" + whole.format(Math.round(x));
  if (x >= 0.1) return "$" + x.toFixed(2);
  // Small sums need digits that say something.
  return "$" + x.toFixed(Math.min(12, 1 - Math.floor(Math.log10(x)))).replace(/0+$/, "");
}
const round = x => usd(x).replace(/\.00$/, "");
function took(s) {
  if (!known(s)) return "–";
  if (s >= 5400) return (s / 3600).toFixed(1) + " h";
  if (s >= 100) return Math.round(s / 60) + " min";
  return s >= 10 ? s.toFixed(0) + " s" : s >= 1 ? s.toFixed(1) + " s" : (1000 * s).toFixed(s < 0.01 ? 1 : 0) + " ms";
}
function ago(at) {
  const s = Math.max(0, Date.now() / 1000 - at);
  return s < 5 ? "now" : s < 60 ? Math.round(s) + " s" : s < 3600 ? Math.round(s / 60) + " min" : s < 86400 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " d";
}
const past = at => ago(at) === "now" ? "now" : ago(at) + " ago";
const date = at => new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
const plain = kind => kind.replaceAll("_", " ");
const big = (id, text) => { $(id).textContent = text; $(id).classList.toggle("long", text.length > 7); };
// A target's colour goes by its place in the config, so that it is the same in every view; whatever is no target has none of its own.
let order = new Map();
const colour = name => order.has(name) ? `var(--c${order.get(name) % 8})` : "var(--soft)";
const swatch = name => make("span", { class: "swatch", style: { background: colour(name) } });
const named = (name, ...more) => make("span", { class: "named" }, swatch(name), make("span", {}, name, ...more));
const bar = (x, name, paint) => make("div", { class: "bar" }, x > 0 ? make("i", { style: { width: `max(2px, ${percent(Math.min(1, x), 2)})`, background: paint || colour(name) } }) : null);
const barred = (x, text, name, paint) => make("div", { class: "cell" }, bar(x, name, paint), make("span", {}, text));

// A mean in [0, 1] with its interval, on a line.
function range(mid, low, high, name) {
  const x = v => (100 * Math.min(1, Math.max(0, v))).toFixed(1) + "%";
  return draw("svg", { class: "range", role: "img", "aria-label": `${percent(mid)}, from ${percent(Math.max(0, low))} to ${percent(Math.min(1, high))}` },
    draw("line", { x1: "0", x2: "100%", y1: "7", y2: "7" }),
    draw("line", { class: "ci", x1: x(low), x2: x(high), y1: "7", y2: "7", style: { stroke: colour(name) } }),
    draw("circle", { cx: x(mid), cy: "7", r: "4.5", style: { fill: colour(name) } }));
}

// Rows of cells; a cell is text, a node, or [class, text or nodes …].
function sheet(id, heads, rows, none) {
  const box = $(id), head = h => make("th", { scope: "col", class: Array.isArray(h) ? h[0] : null }, Array.isArray(h) ? h[1] : h);
  const name = h => Array.isArray(h) ? h[1] : h;
  const cell = (c, h) => Array.isArray(c) ? make("td", { class: c[0], "data-label": name(h) }, ...c.slice(1)) : make("td", { class: Array.isArray(h) ? h[0] : null, "data-label": name(h) }, c ?? "–");
  const held = box.contains(document.activeElement) && document.activeElement.dataset.id;
  box.replaceChildren(rows.length
    ? make("table", {}, make("thead", {}, make("tr", {}, ...heads.map(head))), make("tbody", {}, ...rows.map(r => make("tr", {}, ...r.map((c, i) => cell(c, heads[i]))))))
    : make("p", { class: "small" }, none));
  if (held) box.querySelector(`[data-id="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
  reach(box);
}
// What scrolls must be reachable by keyboard, and what does not scroll need not be.
function reach(box) {
  if (box.scrollWidth > box.clientWidth + 1) { box.tabIndex = 0; box.setAttribute("role", "region"); box.setAttribute("aria-label", box.dataset.label); }
  else { box.removeAttribute("tabindex"); box.removeAttribute("role"); box.removeAttribute("aria-label"); }
}

// ------------------------------------------------------------------ asking the gateway
// Two doors: an API key shows the traffic, an admin key opens /admin. Each is "unknown" until it was tried, then "open", or it is shut: "missing"
// (this tab has no key for it), "refused" (its key is not taken, and `said` is why) or "closed" (the gateway has keys and no admin keys).
const doors = { api: { state: "unknown", slot: "fairlead-key" }, admin: { state: "unknown", slot: "fairlead-admin-key" } };
const shut = which => !["unknown", "open"].includes(doors[which].state);
const held = which => sessionStorage.getItem(doors[which].slot);
class Quiet extends Error {} // what is told elsewhere on the page, or is of no use any more

async function call(path, body, { which = "api", method = body ? "POST" : "GET" } = {}) {
  const headers = {}, key = held(which), door = doors[which];
  if (key) headers.authorization = "Bearer " + key;
  if (body) headers["content-type"] = "application/json";
  const reply = await fetch(path, { method, headers, body: body ? JSON.stringify(body) : undefined });
  const error = reply.ok ? null : (await reply.json().catch(() => null))?.error, closed = which === "admin" && error?.code === "not_found";
  const state = closed ? "closed" : reply.status !== 401 ? "open" : key ? "refused" : "missing";
  if (held(which) === key && door.state !== state) { // else another key has taken its place meanwhile
    Object.assign(door, { state, said: error?.message });
    arrange();
    if (which === "api" && shut("api") && !held("admin")) unlock(key ? `The key of this tab is refused: ${door.said}` : "");
  }
  if (closed || reply.status === 401) throw new Quiet("a key is needed");
  if (!reply.ok) throw new Error(error?.message || `status ${reply.status}`);
  return reply;
}
const get = async (path, body) => (await call(path, body)).json();

// The one box that asks for keys. It takes either kind, and finds out which it is; it never covers a key that is shown.
function unlock(words = "") {
  $("lock-said").textContent = words;
  $("lock-said").hidden = !words;
  if (!$("lock").open) $("issued").hasChildNodes() ? $("lock").show() : $("lock").showModal();
  $("key").select();
  $("key").focus();
}
async function accept(key) {
  if (!/^[\x21-\x7e]+$/.test(key)) return "A key is made of plain letters, digits and signs, without a space.";
  const [api, admin] = await Promise.all(["/v1/models", "/admin/config"].map(path => fetch(path, { headers: { authorization: "Bearer " + key } })));
  for (const [which, reply] of [["api", api], ["admin", admin]]) if (reply.ok) { sessionStorage.setItem(doors[which].slot, key); doors[which].state = "open"; }
  if (api.ok || admin.ok) return null;
  const error = (await api.json().catch(() => null))?.error;
  if (error?.code !== "invalid_api_key") return `The key is refused: ${error?.message || `status ${api.status}`}`;
  return "The key is refused: this gateway has no such API key" + (admin.status === 404 ? ", and no admin keys." : " and no such admin key.");
}
$("lock-form").addEventListener("submit", async e => {
  e.preventDefault();
  $("lock-open").disabled = true;
  const wrong = await accept($("key").value.trim()).catch(() => "The gateway cannot be reached.");
  $("lock-open").disabled = false;
  if (wrong) return unlock(wrong);
  $("key").value = "";
  $("lock").close();
  opened = null; // what could not be shown is looked at again
  start();
});
$("lock-close").addEventListener("click", () => $("lock").close());
$("lock").addEventListener("keydown", e => { if (e.key === "Escape") $("lock").close(); });
$("gate-open").addEventListener("click", () => unlock());

// ------------------------------------------------------------------ the live part
let last = "", stats = null, newest = "";
async function refresh({ unseen = false } = {}) {
  if (document.hidden && !unseen || shut("api")) return;
  try {
    const s = await get("/v1/stats");
    order = new Map(s.targets.map((t, i) => [t.name, i]));
    $("dot").className = s.draining ? "dot off" : "dot";
    $("state").textContent = s.draining ? "draining" : "live";
    s.up_seconds = 0;
    const now = JSON.stringify(s);
    // What is being read or tabbed through is not swapped out for its equal.
    if (now !== last) { last = now; stats = s; show(s); }
    if (view() === "traffic") await latest(s);
    for (const e of all("[data-at]")) e.textContent = past(+e.dataset.at);
  } catch (e) {
    $("dot").className = "dot off";
    if (!shut("api")) $("state").textContent = "not reachable";
  }
}
async function latest(s) {
  const mark = JSON.stringify([s.traces, s.requests, s.refused, s.targets.map(t => t.judged + t.quality)]);
  if (mark === newest) return;
  const { data } = await get("/v1/decisions?limit=12");
  newest = mark;
  const held = $("recent").contains(document.activeElement) && document.activeElement.dataset.id;
  $("recent").replaceChildren(...(data.length ? data.map(row) : [make("li", { class: "small" }, "Nothing yet. Ask something below, or point a client at ", make("b", {}, location.origin + "/v1"), ".")]));
  if (held) $("recent").querySelector(`[data-id="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
}
function show(s) {
  SHOWS[view()]?.(s);
  const c = s.covers, several = c.of > 1 ? (c.whole ? `Figures of ${c.workers} of ${c.of} workers, a few seconds behind` : `Figures of this worker alone (of ${c.of}): the store cannot be asked for the others'`) : "Figures of this process";
  $("foot").textContent = `Fairlead ${s.version}. ${several}, and of what the store held at the start (its newest 2,000). The store keeps ${count(s.traces, "decision")}, refusals included.` + (c.configs > 1 ? ` The workers run ${c.configs} different configs; reload them.` : "");
  for (const [id, names] of [["by-route", [...s.routes.map(r => r.name), ...s.targets.map(t => t.name)]], ["by-target", s.targets.map(t => t.name)]])
    if ($(id).options.length !== names.length + 1) { const v = $(id).value; $(id).replaceChildren(make("option", { value: "" }, "all"), ...names.map(n => make("option", { value: n }, n))); $(id).value = v; fill(); }
  for (const [id, names] of [["rule-names", Object.values(s.rules).flatMap(r => Object.keys(r))], ["guard-names", Object.keys(s.guards)]])
    $(id).replaceChildren(...[...new Set(names)].map(n => make("option", { value: n })));
}
function judgedOf(s) {
  const n = s.targets.reduce((k, t) => k + t.judged, 0);
  return [n, n ? s.targets.reduce((k, t) => k + t.judged * (t.quality || 0), 0) / n : null];
}
function traffic(s) {
  big("requests", whole.format(s.requests));
  const apart = s.unasked ? `; ${count(s.unasked, "refusal")} counted apart` : "";
  $("since").textContent = s.requests ? (ago(s.since) === "now" ? "just now" : `in the last ${ago(s.since)}`) + `; ${whole.format(s.in_flight)} under way` + apart : "none yet" + apart;
  big("p50", took(s.seconds_p50));
  $("p95").textContent = known(s.seconds_p95) ? `95 of 100 within ${took(s.seconds_p95)}` : "no answer yet";
  big("usd", usd(s.usd));
  const v = s.savings;
  $("per").textContent = v.n >= 30 && v.strongest ? `${percent(Math.abs(v.share))} ${v.share < 0 ? "more" : "less"} than always ${v.strongest}` : s.requests ? `${usd(1000 * s.usd / s.requests)} a thousand requests` : "nothing yet";
  const [n, q] = judgedOf(s);
  big("quality", n ? share(q) : "–");
  $("judged").textContent = n ? `mean of ${count(n, "judgement")}` : "no feedback yet";
  hours("hour", s.minutes, s.failed_minutes, x => whole.format(x), "Requests a minute");
  const said = [[s.failures, "failed", "any"], [s.refused, "refused", "any"], [s.fallbacks, s.fallbacks === 1 ? "fallback" : "fallbacks", ""]];
  $("outcomes").replaceChildren(...said.filter(([k]) => k).map(([k, w, error]) => make("li", {}, error ? make("a", { href: "#decisions?error=" + error }, `${whole.format(k)} ${w}`) : `${whole.format(k)} ${w}`)),
    ...Object.entries(s.turned_away).map(([code, k]) => make("li", {}, `${whole.format(k)} turned away: ${plain(code)}`)));
  const ill = s.targets.filter(t => t.breaker !== "closed" || t.failures_in_a_row);
  $("health").replaceChildren(...(ill.length ? ill.map(t => make("li", { class: t.breaker === "open" ? "bad" : null }, swatch(t.name), `${t.name}: ${ailing(t, s)}`)) : s.requests ? [make("li", {}, `all ${count(s.targets.length, "target")} healthy`)] : []));
}
function ailing(t, s) {
  const some = s.covers.workers > 1 && t.breakers_open ? ` in ${t.breakers_open} of ${s.covers.workers} workers` : "";
  return t.breaker === "open" ? `rests for ${took(t.resting_seconds)}${some}` : t.breaker === "half open" ? `has rested; the next request tries it again${some}` : count(t.failures_in_a_row, "failure") + " in a row";
}
// Sixty bars, one a minute.
function hours(id, values, bad, unit, what) {
  const svg = $(id), w = Math.max(240, svg.clientWidth || 600), h = svg.clientHeight || 118, most = Math.max(...values), top = 16, base = h - 20, step = w / values.length;
  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  svg.setAttribute("aria-label", most ? `${what} in the last hour: at most ${unit(most)}, now ${unit(values.at(-1))}` : `${what}: none in the last hour`);
  const height = v => v > 0 ? Math.max(2, (base - top) * v / most) : 0, text = (x, y, t, anchor) => draw("text", { x, y, "text-anchor": anchor }, t);
  svg.replaceChildren(draw("line", { class: "axis", x1: 0, x2: w, y1: base + .5, y2: base + .5 }),
    ...values.flatMap((v, i) => { const x = i * step + step * .12, width = step * .76, f = bad ? height(bad[i]) : 0, all = height(v);
      return v > 0 ? [draw("rect", { class: "ok", x, width, y: base - all, height: Math.max(0, all - f), rx: 1 }), ...(f ? [draw("rect", { class: "bad", x, width, y: base - f, height: f, rx: 1 })] : [])] : []; }),
    text(0, 10, most ? `${what}: at most ${unit(most)}` : `${what}: none in the last hour`, "start"), ...(bad && bad.some(x => x) ? [text(w, 10, "red: failed", "end")] : []),
    text(0, h - 3, "60 min ago", "start"), text(w, h - 3, "now", "end"));
}
function row(r) {
  const refused = r.error === "no_target", mark = r.error ? make("span", { class: "mark no", title: plain(r.error) }, "!") : !known(r.judged) ? make("span", { class: "mark" })
    : make("span", { class: r.judged >= .5 ? "mark ok" : "mark no", title: `judged ${r.judged}`, "aria-label": `judged ${r.judged}` }, r.judged >= .5 ? "✓" : "✗");
  const tags = [...(r.rule ? [`rule ${r.rule}`] : []), ...r.guards.map(g => `guard ${g}`), ...r.acts, ...(r.tried && !r.error ? [count(r.tried, "failed call") + " before"] : [])];
  return make("li", {}, make("a", { href: "#decisions/" + encodeURIComponent(r.id) + (view() === "decisions" && place().query.size ? "?" + place().query : ""), "data-id": r.id },
    make("span", { class: "num when", "data-at": r.at }, past(r.at)),
    make("span", { class: "prompt" }, known(r.prompt) ? r.prompt.trim() || "(no text)" : "(text not kept)"),
    make("span", { class: "target", title: r.target || "nobody" }, ...(r.target ? [swatch(r.target), r.target] : [refused ? "nobody was asked" : "nobody"])),
    make("span", { class: r.error ? "num cost no" : "num cost" }, refused ? "refused" : r.error === "budget" ? "over budget" : r.error ? plain(r.error) : usd(r.usd)),
    make("span", { class: "num took" }, took(r.seconds)), mark,
    make("span", { class: "more" }, r.why ? make("span", { class: "small why" }, r.why) : "", ...tags.map(t => make("span", { class: "tag" }, t)))));
}

// ------------------------------------------------------------------ targets
const priced = t => known(t.input_usd_per_mtok) || known(t.output_usd_per_mtok) ? `${round(t.input_usd_per_mtok)} in, ${round(t.output_usd_per_mtok)} out` : "price unknown";
function condition_of(t, s) {
  const well = t.breaker === "closed" && !t.failures_in_a_row, line = t.concurrent ? `${t.under_way} of ${t.concurrent} at once` + (t.waiting ? `, ${t.waiting} wait` : "") : null;
  return [make("span", { class: t.breaker === "open" ? "tag off" : well && t.calls ? "tag good" : "tag" }, well ? t.calls ? "healthy" : "not called" : ailing(t, s)), ...(line ? [make("span", { class: "small below" }, line)] : [])];
}
function targets(s) {
  const dearest = Math.max(1e-12, ...s.targets.map(t => t.usd));
  sheet("target-rows", ["Target", "Health", "Share", "Spend", "Quality", ["n", "Judged"], ["n", "Time, median / 95%"], ["n", "Failed"]], s.targets.map(t => [
    ["names", named(t.name, make("span", { class: "small below" }, priced(t)))],
    ["", ...condition_of(t, s)],
    ["bars short", barred(t.share, share(t.share), t.name)],
    ["bars", barred(t.usd / dearest, usd(t.usd), t.name)],
    ["bars short", known(t.quality) ? make("div", { class: "cell" }, range(t.quality, t.quality_low, t.quality_high, t.name), make("span", {}, percent(t.quality))) : make("span", { class: "small" }, "not judged")],
    whole.format(t.judged), known(t.seconds_p50) ? `${took(t.seconds_p50)} / ${took(t.seconds_p95)}` : "–", whole.format(t.failures)]), "no targets");
  plane(s);
}
// Targets by what a call costs and how it was judged, and each route's place among them. Each was judged on the requests that it got.
function plane(s) {
  const ts = s.targets.filter(t => t.calls && known(t.quality)).map(t => ({ name: t.name, x: 1000 * t.usd / t.calls, y: t.quality, low: t.quality_low, high: t.quality_high }));
  const rs = s.routes.filter(r => r.requests && known(r.quality)).map(r => ({ name: r.name, x: 1000 * r.usd / r.requests, y: r.quality, low: r.quality_low, high: r.quality_high, route: true }));
  const pts = [...ts, ...rs];
  $("plane").toggleAttribute("hidden", !pts.length);
  $("plane-note").textContent = pts.length ? "Circles: targets, by what a thousand calls cost. Squares: routes, by what a thousand requests cost: the router's own place. Lines: 95% intervals. Dashed: a coin tossed between the cheapest and the best target. Each was judged on the requests it got, not on the same ones." : "The plane appears with the first judged answer: send feedback, or judge an answer on this page.";
  if (!pts.length) return;
  const svg = $("plane"), w = Math.max(280, svg.clientWidth || 640), h = svg.clientHeight || 340, left = 44, right = w - 14, top = 14, base = h - 42;
  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  svg.setAttribute("aria-label", "Judged quality against spend. " + pts.map(q => `${q.route ? "route " : ""}${q.name}: ${percent(q.y)} for ${usd(q.x)} a thousand`).join("; "));
  const xs = pts.map(q => q.x), some = xs.filter(x => x > 0), least = Math.min(...some), most = Math.max(...xs, 0), log = some.length === xs.length && most > 20 * least;
  const [lo, hi] = log ? [Math.log10(least) - .15, Math.log10(most) + .15] : [0, (most || 1e-6) * 1.12];
  const X = v => left + (right - left) * ((log ? Math.log10(v) : v) - lo) / (hi - lo);
  const y0 = Math.max(0, Math.floor(10 * Math.min(...pts.map(q => q.low)) - .2) / 10), y1 = Math.min(1, Math.ceil(10 * Math.max(...pts.map(q => q.high)) + .2) / 10);
  const Y = v => base - (base - top) * (v - y0) / (y1 - y0), tick = y1 - y0 > .55 ? .2 : .1;
  const line = (x1, y1, x2, y2, more) => draw("line", { x1, y1, x2, y2, ...more }), word = (x, y, t, anchor, more) => draw("text", { x, y, "text-anchor": anchor || "start", ...more }, t);
  const ys = []; for (let v = y0; v < y1 + 1e-9; v += tick) ys.push(v);
  let ticks = [];
  if (log) { for (let k = Math.floor(lo); k <= hi; k++) for (const m of w < 480 ? [1] : hi - lo < 2 ? [1, 2, 5] : hi - lo < 3.2 ? [1, 3] : [1]) if (Math.log10(m) + k >= lo && Math.log10(m) + k <= hi) ticks.push(m * 10 ** k); }
  else { const unit = 10 ** Math.floor(Math.log10(hi)), by = hi / unit > 5 ? 2 * unit : hi / unit > 2 ? unit : hi / unit > 1 ? .5 * unit : .2 * unit; for (let v = 0; v <= hi * (w < 480 ? .9 : 1); v += by * (w < 480 ? 2 : 1)) ticks.push(v); }
  const cheap = ts.reduce((a, b) => a && a.x <= b.x ? a : b, null), best = ts.reduce((a, b) => a && a.y >= b.y ? a : b, null);
  const mix = []; // straight where the axis is, bent where it is logarithmic
  if (cheap && best && cheap !== best && best.x > cheap.x) for (let k = 0; k <= 40; k++) { const x = cheap.x + (best.x - cheap.x) * k / 40; if (!log || x > 0) mix.push(`${X(x).toFixed(1)},${Y(cheap.y + (best.y - cheap.y) * k / 40).toFixed(1)}`); }
  // Labels go right or left of their point, and give way downwards or upwards where another is in the way.
  const taken = pts.map(q => [X(q.x) - 8, Y(q.y) - 8, X(q.x) + 8, Y(q.y) + 8]), labels = [];
  for (const q of pts) {
    const name = q.name.length > 24 ? q.name.slice(0, 23) + "…" : q.name, width = 7.4 * name.length + 4, px = X(q.x), py = Y(q.y);
    const places = [[12, 4], [-12, 4], [12, 20], [-12, 20], [12, -12], [-12, -12], [12, 36], [-12, 36], [12, -28], [-12, -28]].map(([dx, dy]) => [dx > 0 ? px + dx : px + dx - width, py + dy - 12, dx > 0 ? px + dx + width : px + dx, py + dy + 4, dx, dy]);
    const fits = ([a, b, c, d]) => a >= left && c <= w && b >= 0 && d <= base && !taken.some(([e, f, g, i]) => a < g && c > e && b < i && d > f);
    const p = places.find(fits) || places.find(([a, , c]) => a >= left && c <= w) || places[0];
    taken.push(p.slice(0, 4));
    labels.push(word(px + p[4], py + p[5], name, p[4] > 0 ? "start" : "end", { class: "name", style: { fontWeight: q.route ? 600 : 400 } }));
  }
  svg.replaceChildren(
    ...ys.flatMap(v => [line(left, Y(v), right, Y(v), { class: "axis" }), word(left - 8, Y(v) + 4, percent(v), "end")]),
    ...ticks.map((v, i) => word(X(v), base + 17, round(v), i === 0 && X(v) < left + 30 ? "start" : X(v) > right - 40 ? "end" : "middle")),
    word((left + right) / 2, h - 6, (w < 480 ? "spend a thousand" : "spend per thousand calls or requests") + (log ? ", logarithmic" : ""), "middle"),
    ...(mix.length ? [draw("polyline", { class: "mix", points: mix.join(" "), fill: "none" })] : []),
    ...pts.map(q => line(X(q.x), Y(q.low), X(q.x), Y(q.high), { style: { stroke: q.route ? "var(--ink)" : colour(q.name), strokeWidth: 3, opacity: .4 } })),
    ...ts.map(q => draw("circle", { cx: X(q.x), cy: Y(q.y), r: 6, style: { fill: colour(q.name) } })),
    ...rs.map(q => draw("rect", { class: "halo", x: X(q.x) - 5.5, y: Y(q.y) - 5.5, width: 11, height: 11 })), ...labels);
}

// ------------------------------------------------------------------ rules, guards, actions
// A condition as it is written in the config, on one line.
function condition(c) {
  if (!known(c)) return "always";
  const said = { gt: ">", ge: "\u2265", lt: "<", le: "\u2264", eq: "=", ne: "\u2260", in: "in" };
  const one = v => Array.isArray(v) ? v.map(one).join(", ") : typeof v === "object" && v !== null ? Object.entries(v).map(([k, x]) => k === "all" || k === "any" ? x.map(y => x.length > 1 ? `(${one(y)})` : one(y)).join(k === "all" ? " and " : " or ") : k === "not" ? `not (${one(x)})` : said[k] ? `${said[k]} ${one(x)}` : `${k} ${one(x)}`).join(" and ") : String(v);
  return one(c) || "always";
}

const times = (n, query) => n ? make("a", { href: "#decisions?" + new URLSearchParams(query), "data-id": JSON.stringify(query) }, whole.format(n)) : make("span", { class: "small" }, "never");
function rulebook(s) {
  const b = s.rulebook || { guards: [], rules: [] }, unlisted = s.rulebook ? "not in the live config any more" : "not told to this key", none = what => s.rulebook ? what : "How rules and guards are written is not told to this key.", decided = (route, name) => s.rules[route]?.[name] || 0;
  const gone = Object.entries(s.rules).flatMap(([route, names]) => Object.keys(names).filter(n => !b.rules.some(r => r.route === route && r.name === n)).map(name => ({ route, name, gone: true })));
  sheet("rules-sheet", ["Rule", "Route", "When", ["n", "Decided"], "Of its route"], [...b.rules, ...gone].map(r => { const n = decided(r.route, r.name), of = s.by_route[r.route] || 0;
    return [r.name, r.route, ["text", r.gone ? unlisted : r.default ? "no other rule" : condition(r.when), r.required ? make("span", { class: "tag" }, "required") : ""], times(n, { rule: r.name, route: r.route }), ["bars short", barred(of ? n / of : 0, of ? share(Math.min(1, n / of)) : "–", "", "var(--accent)")]]; }), none("No route has rules."));
  const lost = Object.keys(s.guards).filter(n => !b.guards.some(g => g.name === n)).map(name => ({ name, gone: true }));
  const does = g => [...(g.only ? [`only ${g.only.join(", ") || "nobody"}`] : []), ...(g.never?.length ? [`never ${g.never.join(", ")}`] : []), ...(g.do?.length ? [`do ${g.do.join(", ")}`] : [])].join("; ") || "–";
  sheet("guards", ["Guard", "Where", "When", "What", ["n", "Held"]], [...b.guards, ...lost].map(g => [g.name, g.gone ? "–" : g.route || "every request", ["text", g.gone ? unlisted : condition(g.when)], ["text", g.gone ? "–" : does(g)], times(s.guards[g.name] || 0, { guard: g.name })]), none("There are no guards."));
  sheet("acts", ["Action", "What it did", ["n", "Times"]], Object.entries(s.acts).map(([n, k]) => { const at = n.lastIndexOf(" "); return [n.slice(0, at), n.slice(at + 1), times(k, { action: n.slice(0, at) })]; }), "No action has done anything yet.");
  sheet("turned", ["Turned away", ["n", "Times"]], Object.entries(s.turned_away).map(([n, k]) => [["text", plain(n)], whole.format(k)]), "Nobody was turned away.");
}

// ------------------------------------------------------------------ views
const VIEWS = ["traffic", "targets", "decisions", "rules", "money", "learning", "admin"];
const SHOWS = { traffic, targets, rules: rulebook, money: spending, learning: learners };
const OPEN = { decisions, money: accounts, learning: versions, admin: administer };
function unescaped(text) { try { return decodeURIComponent(text); } catch { return text; } }
// A place is #view, #decisions/ID or #decisions?route=auto.
function place() {
  const [, name, id, query] = location.hash.match(/^#([a-z]*)(?:\/([^?]*))?(?:\?(.*))?$/) || [];
  return { view: VIEWS.includes(name) ? name : "traffic", id: name === "decisions" && id ? unescaped(id) : null, query: new URLSearchParams(query || "") };
}
const view = () => place().view;
let was = null;
function turn() {
  const v = view(), moved = v !== was;
  was = v;
  trouble(null);
  arrange();
  if (moved) {
    $("decision").hidden = true;
    opened = null;
    for (const a of all("#nav a")) {
      a.hash === "#" + v ? a.setAttribute("aria-current", "page") : a.removeAttribute("aria-current");
      if (a.hash === "#" + v) $("nav").scrollTo({ left: a.offsetLeft - ($("nav").clientWidth - a.offsetWidth) / 2 });
    }
    document.title = `${document.querySelector("#nav [aria-current]").textContent} · Fairlead`;
    newest = "";
    if (stats) { show(stats); refresh(); }
  }
  if (ready && OPEN[v] && !(v === "decisions" && shut("api"))) attempt(OPEN[v]);
}
// Shows what the tab's keys open of this view, and says in words what it lacks for the rest.
const FOR = { money: " for budgets of keys, teams and tenants", learning: " for the versions", admin: "" };
function arrange() {
  const v = view(), opens = which => which === "api" ? !shut("api") : doors.admin.state === "open";
  for (const e of all("main > [data-view]")) if (e.id !== "decision") e.hidden = !e.dataset.view.split(" ").includes(v) || !(e.dataset.needs || "api").split(" ").some(opens);
  if (shut("api")) {
    $("decision").hidden = true;
    $("dot").className = "dot off";
    $("state").textContent = held("admin") ? "admin key only" : "locked";
  }
  const api = v !== "admin" && shut("api"), admin = v in FOR && shut("admin"), closed = admin && doors.admin.state === "closed";
  $("gate").hidden = !api && !admin;
  $("gate-open").hidden = closed && !api;
  $("gate-title").textContent = api && admin && !closed ? "A key is needed" : api ? "An API key is needed" : closed ? "The admin API is closed" : "An admin key is needed" + FOR[v];
  $("gate-note").textContent = [...Object.values(doors).filter(d => d.state === "refused").map(d => `The key of this tab is refused: ${d.said}.`),
    api && held("admin") ? "The admin key of this tab opens Admin, the budgets under Money and the versions under Learning; it shows no traffic. Make an API key under Admin, or enter one." : "",
    closed ? "This gateway has keys but no admin keys. `fairlead key new --admin NAME` makes one; it goes into gateway.admin_keys." : "It stays in this tab and is forgotten when the tab closes."].join(" ");
}
function trouble(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text || "";
}
async function attempt(work) {
  const at = view();
  trouble(null);
  try { await work(); } catch (e) { if (view() === at && !(e instanceof Quiet)) trouble(e.message); }
}
$("skip").addEventListener("click", e => { e.preventDefault(); $("main").focus(); });
addEventListener("hashchange", turn);
addEventListener("resize", () => { if (stats) SHOWS[view()]?.(stats); all(".sheet").forEach(reach); });

// ------------------------------------------------------------------ decisions
const FILTERS = ["word", "route", "target", "error", "judged", "rule", "guard", "action", "tenant", "key"];
let searching = 0, searched = null, opened = null, further = null;
function fill() {
  const { query } = place();
  if (["rule", "guard", "action", "tenant", "key"].some(n => query.get(n))) $("more-filters").open = true;
  for (const name of FILTERS) { const e = $("search").elements[name]; e.value = query.get(name) || ""; }
}
async function decisions() {
  const { id, query } = place();
  if (id && id !== opened) await look(id, true);
  if (!id) { $("decision").hidden = true; opened = null; }
  fill();
  if (id && searched === `${query}` && $("found").children.length) return; // it is there already, maybe further back than its beginning
  await search(query, null);
  searched = `${query}`;
}
async function search(query, before) {
  const mine = ++searching, asked = new URLSearchParams([...query].filter(([k, v]) => FILTERS.includes(k) && v));
  asked.set("limit", "50");
  if (before) asked.set("before", before);
  const found = await get("/v1/decisions?" + asked);
  if (mine !== searching) return; // a later search has taken its place
  further = found.older;
  $("found").dataset.of = query;
  const rows = found.data.map(row);
  const held = $("found").contains(document.activeElement) && document.activeElement.dataset.id;
  before ? $("found").append(...rows) : $("found").replaceChildren(...rows);
  if (held) $("found").querySelector(`[data-id="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
  const n = $("found").children.length;
  $("found-note").textContent = (n ? count(n, "decision") : "No decision fits") + (found.searched > found.data.length ? `; looked at ${before ? "a further " : ""}${whole.format(found.searched)}` : "") + (further ? "; there are older ones" : "") + ".";
  $("older").hidden = !further;
  if (before) rows[0]?.firstChild.focus();
}
$("search").addEventListener("submit", e => {
  e.preventDefault();
  const said = new URLSearchParams(FILTERS.map(n => [n, $("search").elements[n].value.trim()]).filter(([, v]) => v)), to = "#decisions" + (said.size ? "?" + said : "");
  location.hash === to ? attempt(decisions) : location.hash = to;
});
for (const e of all("#search select")) e.addEventListener("change", () => $("search").requestSubmit());
$("clear").addEventListener("click", () => { $("search").reset(); $("more-filters").open = false; $("search").requestSubmit(); });
$("older").addEventListener("click", () => attempt(() => search(place().query, further)));
$("close").addEventListener("click", () => {
  $("decision").hidden = true;
  opened = null;
  const { query } = place();
  if (view() === "decisions") { location.hash = "#decisions" + (query.size ? "?" + query : ""); $("word").focus(); } else $("prompt").focus();
});

// ------------------------------------------------------------------ ask and explain
let answered = null;
function answer(by, text, wrong) {
  $("answer").hidden = false;
  $("by").textContent = by;
  $("text").textContent = text;
  $("text").className = wrong ? "wrong" : "";
}
function thumbs(id) {
  answered = id;
  $("thumbs").hidden = !id;
  $("thanks").textContent = "";
  for (const b of ["up", "down"]) $(b).setAttribute("aria-pressed", "false");
}
function clean() {
  $("decision").hidden = false;
  $("decision").dataset.of = "";
  $("asked").hidden = $("answer").hidden = true;
  for (const id of ["verdict", "options", "explanation", "facts"]) $(id).replaceChildren();
  thumbs(null);
}
function busy(on) { for (const b of ["ask", "explain"]) $(b).disabled = on; }
function body() {
  const content = $("prompt").value.trim();
  if (!content) { $("prompt").focus(); return null; }
  return { model: $("model").value || "auto", messages: [{ role: "user", content }] };
}
function forecast(o, what) {
  const f = o.forecast;
  if (!f) return null;
  const sd = f.quality_sd || 0, parts = [`${what} ${f.quality.toFixed(2)}` + (sd ? ` ± ${sd.toFixed(2)}` : "")];
  if (known(f.usd)) parts.push(usd(f.usd));
  if (known(f.seconds)) parts.push(took(f.seconds));
  return make("div", { class: "forecast" }, range(f.quality, f.quality - 1.96 * sd, f.quality + 1.96 * sd, o.target), make("span", { class: "small" }, "expected " + parts.join(", ")));
}
function words(title, lines) {
  return lines && lines.length ? [make("h4", {}, title), make("ul", { class: "words" }, ...lines.map(l => make("li", {}, l)))] : [];
}
function step(s) {
  const o = s.outcome;
  if (!s.call) return o.cancelled ? "a part of the plan was no longer needed" : `limit: ${o.error?.message || "reached"}`;
  const said = o.error ? `failed: ${plain(o.error.kind)}${o.error.message ? ` (${o.error.message.slice(0, 160)})` : ""}` : o.cancelled ? "cancelled" : (o.text || "").trim().slice(0, 90) || "(no text)";
  return `${s.call.purpose || "answer"} by ${s.call.target}${s.call.prompt ? `, ${s.call.prompt}` : ""}: ${said}; ${took(o.seconds || 0)}${known(o.usd) ? ", " + usd(o.usd) : ""}`;
}
// Why each other option was not taken: what was expected of it beside the chosen one.
function why_not(x, picked) {
  return x.options.filter(o => o !== picked).slice(0, 8).map(o => {
    const said = [], f = o.forecast, g = picked?.forecast, by = x.forecast_of === "quality" ? "quality" : "worth";
    if (f && g) {
      const d = f.quality - g.quality;
      said.push(Math.abs(d) < .005 ? `the same ${by} expected` : `${by} expected ${Math.abs(d).toFixed(2)} ${d < 0 ? "lower" : "higher"}`);
      if (known(f.usd) && known(g.usd) && f.usd !== g.usd) said.push(`${usd(Math.abs(f.usd - g.usd))} ${f.usd > g.usd ? "dearer" : "cheaper"}`);
      if (known(o.utility) && known(picked.utility)) said.push(`worth ${Math.abs(o.utility - picked.utility).toFixed(3)} ${o.utility < picked.utility ? "less" : "more"} by the route's weights`);
    }
    said.push(o.probability > 0 ? `drawn in ${o.probability < .01 ? percent(o.probability, 2) : share(o.probability)} of such cases` : "never drawn in such a case");
    return `${o.target}: ${said.join(", ")}`;
  });
}
function tell(x, ran, trace = null) {
  const acts = trace?.acts || [], steps = trace?.steps || [];
  const read = Object.entries(x.signals || {}).flatMap(([name, r]) => {
    if (r.parts && Object.keys(r.parts).length) return [`${name}: ` + Object.entries(r.parts).map(([k, v]) => `${plain(k)} ${typeof v === "number" ? +v.toFixed(3) : v}`).join(", ")];
    if (r.vector) return [`${name}: ${r.vector}`];
    return known(r.value) ? [`${name}: ${r.value}`] : [];
  });
  const nobody = ran === null;
  const kept = [...(x.guards || []).map(g => `guard ${g} holds`), ...(x.rule ? [`rule ${x.rule} decides`] : []), ...(acts.length ? acts.map(a => `${a.name} ${a.did}` + (a.detail ? ": " + Object.entries(a.detail).map(([k, v]) => `${plain(k)} ${v}`).join(", ") : "")) : (x.actions || []).map(a => (ran === undefined ? "would do: " : "") + a))];
  const picked = x.options.find(o => o.chosen);
  const other = ran && picked && !picked.targets.includes(ran) ? `; ${ran} answered in its place` : "";
  $("verdict").replaceChildren(
    make("div", { class: "label" }, !x.chosen ? "Nobody could be asked, so it was" : nobody ? "It was sent to nobody; it would have gone to" : ran ? "It was sent to" : "It would go to"),
    make("h2", { class: "chosen", id: "chosen" }, x.chosen || "refused"),
    make("div", { class: "small" }, (x.chosen ? `with probability ${percent(x.propensity, x.propensity === 1 ? 0 : 1)}, ` : "") + [x.policy ? `by ${x.policy} version ${x.version}` : "", x.seconds ? `decided in ${took(x.seconds)}` : ""].filter(t => t).join(", ") + other));
  $("options").replaceChildren(...(x.options.length ? [make("h4", {}, "Options"),
    make("ul", {}, ...x.options.slice(0, 8).map(o => make("li", { class: "option" },
      make("span", { class: o.chosen ? "name picked" : "name" }, named(o.target)),
      make("span", { class: "value" }, share(o.probability)),
      bar(o.probability, o.target), forecast(o, x.forecast_of)))),
    ...(x.options.length > 8 ? [make("p", { class: "small" }, `and ${x.options.length - 8} more`)] : [])] : []));
  const barred_out = Object.keys(x.excluded || {}), wanting = Object.entries(x.excluded || {}).map(([n, why]) => `${n}: ${why}`);
  $("explanation").replaceChildren(
    ...words("Why this", x.reasons),
    ...words("Why not that", [...why_not(x, picked), ...wanting]),
    ...words("What would change it", [...(x.what_would_change_it || []).filter(t => !barred_out.some(n => t.startsWith(`${n} could be chosen if`))), ...(barred_out.length ? [`${barred_out.join(", ")} could be chosen if ${barred_out.length > 1 ? "they were" : "it was"} eligible`] : [])]),
    ...words("Guards, rule and actions", kept),
    ...(steps.length ? words(steps.length > 1 ? "What the plan did" : "The call", steps.slice(0, 30).map(step)) : []),
    ...(read.length ? [make("details", {}, make("summary", {}, "Signals read"), ...words("Signals read", read))] : []));
}
function facts(trace) {
  const t = trace, tokens = t.outcome.tokens, who = t.query.identity || {};
  const said = [["When", date(1000 * t.at)], ["Route", t.query.route], ["Took", took(t.seconds)], ["Cost", usd(t.usd)],
    ["Tokens", tokens ? `${whole.format(tokens.input || 0)} in, ${whole.format(tokens.output || 0)} out` : null], ["Tenant", who.tenant], ["User", who.user], ["Session", who.session], ["Key", who.key]];
  const ids = [["Id", t.id], ["Policy", t.decision.policy_digest]];
  $("facts").replaceChildren(...[...said, ...ids.map(([k, v]) => [k, v, "mono"])].filter(([, v]) => v).map(([k, v, c]) => make("div", { class: c ? "wide" : null }, make("dt", {}, k), make("dd", { class: c }, v))));
}
const failed = e => { $("verdict").replaceChildren(make("h2", { id: "chosen" }, "No decision"), make("p", { class: "hint" }, e.message)); };

$("explain").addEventListener("click", async () => {
  const b = body();
  if (!b) return;
  busy(true);
  clean();
  try { tell(await get("/v1/route", b)); } catch (e) { failed(e); } finally { busy(false); }
});
$("form").addEventListener("submit", async e => {
  e.preventDefault();
  const b = body();
  if (!b) return;
  busy(true);
  clean();
  answer("asking …", "");
  let text = "";
  try {
    const reply = await call("/v1/chat/completions", { ...b, stream: true });
    const id = reply.headers.get("x-fairlead-id"), target = reply.headers.get("x-fairlead-target");
    $("by").textContent = target + " answers";
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "", done = false;
    for (;;) {
      const { value, done: end } = await reader.read();
      if (end) break;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        if (!event.startsWith("data: ")) continue;
        const data = event.slice(6);
        if (data === "[DONE]") { done = true; continue; }
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message);
        text += chunk.choices?.[0]?.delta?.content || "";
        $("text").textContent = text;
      }
    }
    if (!done) throw new Error("the answer broke off");
    await look(id, false);
  } catch (x) { answer("No whole answer", (text ? text + "\n\n" : "") + x.message, true); } finally { busy(false); refresh(); }
});
async function look(id, scroll) {
  clean();
  opened = id;
  let shown;
  try { shown = await get("/v1/traces/" + encodeURIComponent(id)); } catch (e) { failed(e); return; }
  const { trace, explanation, feedback } = shown, o = trace.outcome, kept = trace.text_kept !== false;
  const question = (trace.query.messages || []).filter(m => m.role === "user").map(m => typeof m.content === "string" ? m.content : (m.content || []).map(p => p.text || `(${p.type})`).join("\n")).pop();
  if (kept && question) { $("asked").hidden = false; $("question").textContent = question; }
  const text = kept ? o.text || "(no text)" : "(text not kept)";
  if (o.error && ["blocked", "no_target"].includes(o.error.kind)) answer("Refused", o.error.message || (kept ? "" : "(text not kept)"), true);
  else if (o.error) answer(`${o.target || "Nobody"} failed: ${plain(o.error.kind)}`, o.error.message || "", true);
  else answer(`${o.target || "The gateway"} answered in ${took(trace.seconds)} for ${usd(trace.usd)}` + (o.limited ? `, cut short by its ${o.limited}` : ""), text);
  thumbs(o.error ? null : id);
  for (const f of feedback) if (f.source === "page") $(f.value >= .5 ? "up" : "down").setAttribute("aria-pressed", "true");
  const others = feedback.filter(f => f.source !== "page");
  if (others.length) $("thanks").textContent = "judged " + others.slice(0, 6).map(f => `${f.value} by ${f.source || "user"}`).join(", ");
  if (explanation) tell(explanation, trace.acts && !trace.steps ? null : o.target || (explanation.chosen ? explanation.chosen : null), trace);
  facts(trace);
  $("decision").dataset.of = id;
  if (scroll) { $("decision").scrollIntoView({ block: "start" }); $("decision").focus({ preventScroll: true }); }
}
for (const [id, label] of [["up", "up"], ["down", "down"]]) {
  $(id).addEventListener("click", async () => {
    try {
      const receipt = await get("/v1/feedback", { id: answered, label, source: "page" });
      for (const b of ["up", "down"]) $(b).setAttribute("aria-pressed", String(b === id));
      $("thanks").textContent = { accepted: "Thank you; it will be learned.", kept: "Noted; somebody judged this answer before, and that was learned.", revised: "Noted; your first judgement was learned already.", duplicate: "Noted already.", spooled: "Noted; the database is gone for the moment." }[receipt.status];
    } catch (e) { $("thanks").textContent = e.message; }
    refresh();
  });
}
$("prompt").addEventListener("keydown", e => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) $("form").requestSubmit(); });

// ------------------------------------------------------------------ money
function spending(s) {
  big("money-usd", usd(s.usd));
  $("money-per").textContent = s.requests ? `${usd(1000 * s.usd / s.requests)} a thousand requests` : "nothing yet";
  const v = s.savings;
  $("saved-title").textContent = v.strongest ? `Saved against always ${v.strongest}` : "Saved";
  big("saved", v.strongest && v.n >= 30 ? percent(v.share).replace("-", "\u2212") : "–");
  $("saved-note").textContent = v.withheld ? "what it is measured against is not told to this key" : !v.strongest ? "no target has a price" : v.n < 30 ? `told from 30 priced, routed answers on; so far ${v.n}`
    : `95% interval ${percent(v.low)} to ${percent(Math.min(1, v.high))}; ${usd(Math.abs(v.usd))} ${v.usd < 0 ? "more" : "less"}, at equal token counts`;
  big("unpriced", whole.format(s.unpriced));
  $("unpriced-note").textContent = s.unpriced ? "routed answers, left out of the savings" : "every routed answer has one";
  hours("spend-hour", s.usd_minutes, null, usd, "Spend a minute");
  const table = (id, head, rows, paint) => { const sum = rows.reduce((n, r) => n + r.usd, 0); sheet(id, [head, "Spent", ["n", "Requests"]], rows.map(r => [["names", paint ? r.name : named(r.name)], ["bars", barred(sum ? r.usd / sum : 0, usd(r.usd), r.name, paint)], whole.format(r.requests)]), "nothing yet"); };
  table("by-target-usd", "Target", s.targets);
  table("by-route-usd", "Route", s.routes, "var(--accent)");
  budgets(s);
}
let spend = null;
const amount = (n, unit) => unit === "micro_usd" ? usd(n / 1e6) : whole.format(n);
const paint = x => x >= 1 ? "var(--bad)" : x >= .8 ? "var(--c1)" : "var(--accent)";
function budgets(s) {
  const own = (s?.budgets || []).map(b => [`route ${b.route}`, { 3600: "hour", 86400: "day", 604800: "week" }[b.seconds] || took(b.seconds), ["bars short", barred(b.spent / b.usd, share(b.spent / b.usd), "", paint(b.spent / b.usd))], `${usd(b.spent)} of ${round(b.usd)}`, "–", usd(Math.max(0, b.usd - b.spent)), past_or_in(b.ends)]);
  const money = (spend || []).filter(a => a.unit === "micro_usd"), rate = (spend || []).filter(a => a.unit !== "micro_usd"), part = a => a.limit ? a.spent / a.limit : 1;
  sheet("budgets", ["Whose", "Period", "Used", ["n", "Spent"], ["n", "Held"], ["n", "Left"], "Ends"], [...own, ...money.map(a => [whose(a.account), a.period === "total" ? "in all" : a.period, ["bars short", barred(part(a), share(part(a)), "", paint(part(a)))], `${amount(a.spent, a.unit)} of ${round(a.limit / 1e6)}`, a.held ? amount(a.held, a.unit) : "–", amount(a.left, a.unit), a.ends ? past_or_in(new Date(a.ends) / 1000) : "never"])],
    [!s ? "" : s.rulebook ? "No route has a budget." : "What routes may spend is not told to this key.", spend ? "No key, team or tenant has one." : "Those of keys, teams and tenants need an admin key."].join(" "));
  $("rates").hidden = !rate.length;
  sheet("rates", ["Rate limit of", "What", "Used now", ["n", "Count"]], rate.map(a => [whose(a.account), a.unit === "concurrent" ? "at once" : `${a.unit} a ${a.period}`, ["bars short", barred(a.unit === "concurrent" ? (a.spent + a.held) / a.limit : part(a), share(a.unit === "concurrent" ? (a.spent + a.held) / a.limit : part(a)), "", paint(part(a)))], `${amount(a.spent, a.unit)} of ${amount(a.limit, a.unit)}`]), "");
}
const whose = account => account.slice(0, account.lastIndexOf("/")).replace(":", " ");
function past_or_in(at) { const s = at - Date.now() / 1000; return s > 86400 ? `in ${Math.round(s / 86400)} d` : s > 5400 ? `in ${Math.round(s / 3600)} h` : s > 90 ? `in ${Math.round(s / 60)} min` : s > 0 ? `in ${Math.round(s)} s` : past(at); }
async function accounts() {
  spend = (await admin("spend")).data;
  budgets(stats);
}

// ------------------------------------------------------------------ learning
function learners(s) {
  $("learner").textContent = `${count(s.learned, "judged answer")} learned since the start` + (s.quarantined ? `, ${whole.format(s.quarantined)} quarantined because they did harm` : "") + (s.learning_failed ? `, ${whole.format(s.learning_failed)} could not be learned` : "") + (s.covers.of > 1 ? ". One worker learns, for all." : ".");
  sheet("learners", ["Route", "Policy", "Version", ["n", "Requests"], ["n", "Judged"], "Quality"], s.routes.map(r => [r.name, r.policy, known(r.version) ? `${r.version}` + (r.versions.length > 1 ? ` (workers: ${r.versions.join(", ")})` : "") : "–", whole.format(r.requests), whole.format(r.judged || 0),
    ["bars short", known(r.quality) ? make("div", { class: "cell" }, range(r.quality, r.quality_low, r.quality_high, r.name), make("span", {}, percent(r.quality))) : make("span", { class: "small" }, "not judged")]]), "no routes");
  sheet("expects", ["Option", "Route", "Likely", "Expected", ["n", "Cost"]], s.routes.flatMap(r => (r.expects || []).slice(0, 8).map(o => [["names", named(o.option)], r.name, ["bars short", barred(o.probability, share(o.probability), o.option)],
    ["bars", known(o.quality) ? make("div", { class: "cell" }, range(o.quality, o.quality - 1.96 * o.quality_sd, o.quality + 1.96 * o.quality_sd, o.option), make("span", {}, `${o.of} ${o.quality.toFixed(2)}`)) : make("span", { class: "small" }, "no forecast")], known(o.usd) ? usd(o.usd) : "–"])), "No routed request yet.");
  const marked = (low, high, text) => low > 0 || high < 0 ? make("span", { class: high < 0 ? "tag bad" : "tag good" }, text) : text;
  const some = s.targets.filter(t => t.drift);
  sheet("drift", ["Target", ["n", "Newest"], ["n", "Before"], ["n", "Change"], ["n", "99% interval"], ["n", "Against the forecast"]], some.map(t => { const d = t.drift, c = known(d.change);
    return [["names", named(t.name)], c ? `${percent(d.now)} of ${d.n}` : "–", c ? `${percent(d.before)} of ${d.before_n}` : "–", c ? marked(d.change_low, d.change_high, points(d.change)) : "too few", c ? `${points(d.change_low).replace(/ points?/, "")} to ${points(d.change_high)}` : "–", known(d.gap) ? marked(d.gap_low, d.gap_high, points(d.gap)) : "no forecast"]; }),
    "Told from 20 judgements of a target with a forecast on, or 40 without.");
}
async function versions() {
  const s = await admin("state");
  sheet("versions", ["Route", "Policy", ["n", "Version"], "Made", "Note", ""], Object.entries(s.routes).flatMap(([name, r]) => r.versions.length ? [...r.versions].sort((a, b) => b.version - a.version).slice(0, 10).map(v => [name, r.policy, `${v.version}`, past(v.at), ["text", v.note || "–"],
    v.version === r.version ? make("span", { class: "tag good" }, "serves") : v.pruned ? make("span", { class: "tag" }, "pruned") : button("Activate", sure(`Let version ${v.version} serve ${name}?`, async () => { await admin(`routes/${encodeURIComponent(name)}/activate`, { method: "POST", body: { version: v.version } }); await versions(); }), `Activate version ${v.version} of ${name}`)]) : [[name, r.policy, known(r.version) ? `${r.version}` : "–", "–", "learns nothing", ""]]), "no routes");
}

// ------------------------------------------------------------------ what needs an admin key
async function admin(path, { method = "GET", body } = {}) {
  const at = view(), reply = await call("/admin/" + path, body, { which: "admin", method });
  if (method === "GET" && view() !== at) throw new Quiet("its view is left");
  return reply.status === 204 ? null : reply.json();
}
const button = (label, work, says) => make("button", { type: "button", on: () => attempt(work), "aria-label": says }, label);
const sure = (what, work) => async () => { if (confirm(what)) await work(); };
const EACH = { day: "a day", month: "a month", total: "in all" };
const means = k => [...["routes", "targets"].filter(w => k[w]).map(w => `only ${w} ${k[w].join(", ") || "none"}`), ...(k.budgets || []).map(b => `${round(b.usd)} ${EACH[b.period]}`), ...(k.limits?.requests_per_minute ? [`${whole.format(k.limits.requests_per_minute)} requests a minute`] : []), ...(k.limits?.tokens_per_minute ? [`${whole.format(k.limits.tokens_per_minute)} tokens a minute`] : []), ...(k.limits?.concurrent ? [`${whole.format(k.limits.concurrent)} at once`] : [])].join("; ") || "no limit";
function used(name) {
  const of = (spend || []).filter(a => a.unit === "micro_usd" && a.account.startsWith(name + "/"));
  return of.length ? of.map(a => barred(a.limit ? a.spent / a.limit : 1, share(a.limit ? a.spent / a.limit : 1), "", paint(a.limit ? a.spent / a.limit : 1))) : [make("span", { class: "small" }, "–")];
}
function state(k) {
  if (k.revoked) return make("span", { class: "tag bad" }, "revoked");
  if (k.expires && new Date(k.expires) < Date.now()) return make("span", { class: "tag bad" }, "expired");
  return make("span", { class: "tag good" }, k.expires ? `until ${new Date(k.expires).toLocaleDateString(undefined, { dateStyle: "medium" })}` : "works");
}
async function administer() {
  const first = await admin("keys");
  const [ls, log, c, sp] = await Promise.all([admin("limits"), admin("audit?limit=50"), admin("config"), admin("spend")]);
  spend = sp.data;
  const names = new Map(first.data.map(k => [k.id, k.name]));
  sheet("keys", ["Name", "Of", "Begins with", "May use", "Budget used", "State", ""], first.data.map(k => [["text", k.name], ["text", [k.tenant && `tenant ${k.tenant}`, k.team && `team ${k.team}`].filter(t => t).join(", ") || "–"], k.prefix ? ["mono", k.prefix + "…"] : make("span", { class: "small" }, "in the config"), ["text", means(k)], ["bars short", ...used("key:" + k.name)], state(k),
    k.source === "config" || k.revoked ? "" : ["", button("Rotate", sure(`Make another key for ${k.name}? The old one stops at once.`, async () => issued(await admin(`keys/${encodeURIComponent(k.id)}/rotate`, { method: "POST", body: {} }))), `Rotate ${k.name}`), button("Revoke", sure(`Revoke ${k.name}?`, async () => { await admin(`keys/${encodeURIComponent(k.id)}`, { method: "DELETE" }); await administer(); }), `Revoke ${k.name}`)]]), "No keys: whoever reaches this address may ask.");
  sheet("limits", ["Whose", "May use", "Budget used", "From", ""], ls.data.map(l => [["text", l.scope.replace(":", " ")], ["text", means(l)], ["bars short", ...used(l.scope)], l.source === "config" ? "config" : "set here", l.source === "config" ? "" : button("Drop", sure(`Let ${l.scope} use what it likes?`, async () => { await admin(`limits/${encodeURIComponent(l.scope)}`, { method: "DELETE" }); await administer(); }), `Drop the limits of ${l.scope}`)]), "No team or tenant has a limit.");
  sheet("audit", ["When", "Who", "From", "What", "Of", "Detail"], log.data.map(a => [date(a.at), a.who, a.address || "–", a.what, ["text", names.get(a.subject) || a.subject], ["text", detail(a.detail)]]), "Nothing was changed yet.");
  $("first-key").hidden = !c.open;
  $("new-key").hidden = c.open;
  const many = stats?.covers.of > 1;
  $("config").replaceChildren(...[["Live config", c.digest ? c.digest.slice(0, 16) : "none", "mono"], ["Reloaded", c.reloads === 0 ? "never" : count(c.reloads, "time")], ["Routes", c.routes.join(", ")], ["Targets", c.targets.join(", ")], ["Workers", many ? String(stats.covers.of) : null], ["Under way", stats ? whole.format(stats.in_flight) : null]].filter(([, v]) => v).map(([k, v, cl]) => make("div", {}, make("dt", {}, k), make("dd", { class: cl, title: k === "Live config" ? c.digest : null }, v))));
  $("reach").textContent = "Reloading checks the file whole first; a wrong one changes nothing. Draining tells load balancers to send nobody; requests under way end." + (many ? " Both reach all workers." : "");
}
const empty = v => !known(v) || v === "" || typeof v === "object" && Object.values(v).every(empty);
const flat = v => Array.isArray(v) ? v.map(flat).join("; ") : typeof v === "object" ? Object.entries(v).filter(([, x]) => !empty(x)).map(([k, x]) => `${plain(k)} ${flat(x)}`).join(", ") : String(v);
const detail = d => Object.entries(d || {}).filter(([, v]) => !empty(v)).map(([k, v]) => k === "budgets" && Array.isArray(v) ? means({ budgets: v }) : k === "limits" ? flat(v) : `${plain(k)} ${flat(v)}`).join("; ") || "–";
// A new key stays on the screen, in whatever view and whatever else happens, until it is put away: it is never shown again.
async function issued(k) {
  const secret = make("div", { class: "secret" }, k.key), done = make("span", { class: "small", role: "status" });
  const copy = async () => {
    try { await navigator.clipboard.writeText(k.key); done.textContent = "Copied."; }
    catch { getSelection().selectAllChildren(secret); done.textContent = "It is selected: copy it with Ctrl+C or \u2318C."; }
  };
  const box = make("section", { tabindex: -1, "aria-label": `The key of ${k.name}` }, make("h2", {}, `The key of ${k.name}`),
    make("p", { class: "note" }, "Copy it now: it is not shown again once it is put away."), secret,
    make("div", { class: "actions" }, make("button", { type: "button", class: "main", on: copy }, "Copy"), make("button", { type: "button", on: () => { box.remove(); $("main").focus(); } }, "Put away"), done));
  $("issued").append(box);
  if ($("lock").open) { $("lock").close(); $("lock").show(); } // no longer over everything
  box.focus();
  if (view() === "admin") await administer();
}
addEventListener("beforeunload", e => { if ($("issued").hasChildNodes()) e.preventDefault(); });
const said = id => $(id).value.trim();
function number(id, what) {
  const text = said(id);
  if (!text) return null;
  if (!/^\d+(\.\d+)?$/.test(text)) { $(id).focus(); throw new Error(`${what} is a number, such as 20`); }
  return +text;
}
$("new-key").addEventListener("submit", e => {
  e.preventDefault();
  attempt(async () => {
    const body = { name: said("key-name"), limits: {} }, money = number("key-usd", "a budget"), days = number("key-days", "days");
    if (said("key-tenant")) body.tenant = said("key-tenant");
    if (said("key-team")) body.team = said("key-team");
    if (money !== null) body.budgets = [{ usd: money, period: $("key-period").value }];
    for (const [id, field, what] of [["key-rate", "requests_per_minute", "requests a minute"], ["key-tokens", "tokens_per_minute", "tokens a minute"], ["key-concurrent", "concurrent", "requests at once"]]) body.limits[field] = number(id, what);
    for (const field of ["routes", "targets"]) if (said("key-" + field)) body[field] = said("key-" + field).split(",").map(n => n.trim()).filter(n => n);
    if (days !== null) body.expires = new Date(Date.now() + 864e5 * days).toISOString();
    const made = await admin("keys", { method: "POST", body });
    $("new-key").reset();
    await issued(made);
  });
});
$("new-limit").addEventListener("submit", e => {
  e.preventDefault();
  attempt(async () => {
    const scope = `${$("limit-kind").value}:${said("limit-name")}`, there = (await admin("limits")).data.find(l => l.scope === scope);
    const budget = { usd: number("limit-usd", "a budget"), period: $("limit-period").value }, others = (there?.budgets || []).filter(b => b.period !== budget.period);
    await admin(`limits/${encodeURIComponent(scope)}`, { method: "PUT", body: { budgets: [...others, budget], limits: there?.limits || {} } });
    $("new-limit").reset();
    await administer();
  });
});
$("reload").addEventListener("click", () => attempt(async () => { const d = await admin("reload", { method: "POST" }); $("done").textContent = `live: ${d.digest.slice(0, 16)}`; await administer(); }));
for (const [id, on] of [["drain", true], ["undrain", false]]) $(id).addEventListener("click", () => attempt(async () => { const d = await admin("drain", { method: "POST", body: { on } }); $("done").textContent = `${d.draining ? "draining" : "not draining"}, ${d.in_flight} under way`; await administer(); refresh(); }));

let ready = false;
async function start() {
  try {
    const models = (await get("/v1/models")).data;
    $("model").replaceChildren(...models.map(m => make("option", { value: m.id }, m.kind === "route" ? m.id : `only ${m.id}`)));
  } catch { /* refresh shows it */ }
  await refresh({ unseen: true }); // whatever is shown goes by the order of the targets
  ready = true;
  turn();
}
turn();
start();
setInterval(refresh, 2000);
document.addEventListener("visibilitychange", () => refresh());
