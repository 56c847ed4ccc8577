"use strict";
// The stream is read here, not by an <img>: so the page knows which picture it shows and how old that one is, can tell a
// stream that stands still from a picture in which nothing moves, and lets go of it while nobody looks.

const $ = id => document.getElementById(id);
const canvas = $("picture"), stage = $("stage"), context = canvas.getContext("2d");
const POLL_MS = 500, GONE_MS = 2500, RETRY_MS = 1000;
const PANES = { side: ["camera", "mask"], compare: ["", ""] };   // of two models the titles come with the figures
const SEEN = 0.001;          // a class below a thousandth counts as absent
const MANY_CLASSES = 24;     // with more, only those that were seen are listed

const SHORT = { preprocess: "pre", postprocess: "post" };

let mode = "overlay", reading = null, newest = null, report = null, heardAt = performance.now(), drawnAt = 0;
let everSeen = new Set(), shown = 0;

// ---- the stream

async function readStream(signal) {
  const answer = await fetch(`stream.mjpg?mode=${mode}`, { signal, cache: "no-store" });
  if (!answer.ok) throw new Error(`${answer.status}`);
  const reader = answer.body.getReader();
  let held = new Uint8Array(0);
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const joined = new Uint8Array(held.length + value.length);
    joined.set(held); joined.set(value, held.length);
    held = takeParts(joined);
  }
}

function takeParts(bytes) {
  for (;;) {
    const end = headEnd(bytes);
    if (end < 0) return bytes;
    const head = new TextDecoder("latin1").decode(bytes.subarray(0, end));
    const field = name => (head.match(new RegExp(`^${name}: *(.*)$`, "mi")) || [])[1];
    const length = Number(field("Content-Length"));
    if (bytes.length < end + 4 + length + 2) return bytes;
    newest = {
      jpeg: bytes.slice(end + 4, end + 4 + length), sequence: Number(field("X-Sequence")), mode,
      live: field("X-State").trim() === "live", age: Number(field("X-Age-Ms")), at: performance.now(),
    };
    heardAt = performance.now();
    bytes = bytes.subarray(end + 4 + length + 2);
    requestAnimationFrame(draw);
  }
}

function headEnd(bytes) {
  for (let i = 0; i + 3 < bytes.length; i++)
    if (bytes[i] === 13 && bytes[i + 1] === 10 && bytes[i + 2] === 13 && bytes[i + 3] === 10) return i;
  return -1;
}

async function draw() {
  const part = newest;
  newest = null;
  if (part === null || part.mode !== mode) return;
  // A picture that is not live has its colours taken out and words in it, for those who see the stream without this
  // page. Here the last live one stays, and the page says it better.
  if (!part.live && shown > 0) return;
  let picture;
  try { picture = await createImageBitmap(new Blob([part.jpeg], { type: "image/jpeg" })); } catch { return; }
  if (part.mode !== mode) return picture.close();
  const two = mode in PANES && !(mode === "compare" && report && !report.modes.includes("compare"));
  const stacked = two && !document.fullscreenElement && innerWidth < 760 && innerHeight > innerWidth;
  const width = stacked ? picture.width / 2 : picture.width, height = stacked ? picture.height * 2 : picture.height;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width; canvas.height = height;
    stage.style.setProperty("--aspect", width / height);
  }
  stage.classList.toggle("stacked", stacked);
  if (stacked) {
    context.drawImage(picture, 0, 0, width, picture.height, 0, 0, width, picture.height);
    context.drawImage(picture, width, 0, width, picture.height, 0, picture.height, width, picture.height);
  } else context.drawImage(picture, 0, 0);
  picture.close();
  drawnAt = part.at;
  shown += 1;
  canvas.dataset.sequence = part.sequence;
  canvas.dataset.shown = shown;
  canvas.dataset.mode = part.mode;
}

async function keepReading() {
  for (;;) {
    if (document.hidden) { await new Promise(done => document.addEventListener("visibilitychange", done, { once: true })); continue; }
    reading = new AbortController();
    try { await readStream(reading.signal); } catch (error) {
      if (error.name === "AbortError") continue;
    }
    await new Promise(done => setTimeout(done, RETRY_MS));
  }
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden && reading) reading.abort();
  report = null; // what was known before says nothing about now
  heardAt = performance.now();
});

// ---- figures

async function poll() {
  for (;;) {
    if (!document.hidden) {
      const limit = new AbortController(), timer = setTimeout(() => limit.abort(), 2000);
      try {
        const answer = await fetch("stats.json", { cache: "no-store", signal: limit.signal });
        if (answer.ok) {
          report = await answer.json();
          report.at = heardAt = performance.now();
          render();
        }
      } catch { /* the state shows it */ }
      clearTimeout(timer);
      renderState();
    }
    await new Promise(done => setTimeout(done, POLL_MS));
  }
}

function state() {
  const now = performance.now();
  if (now - heardAt > GONE_MS || (report && now - report.at > GONE_MS)) return ["gone", (now - heardAt) / 1000];
  if (!report) return ["connecting", 0];
  const since = report.since_s + (now - report.at) / 1000;
  if (report.state !== "live") return [report.state, since];
  // The server has new frames: but do they arrive here?
  if (shown > 0 && now - drawnAt > Math.max(1500, 1000 * report.stale_after_s + 500)) return ["stale", (now - drawnAt) / 1000];
  return shown > 0 ? ["live", 0] : ["connecting", 0];
}

const SAYS = {
  connecting: ["connecting", "", ""],
  waiting: ["waiting", "Waiting for the first frame", ""],
  live: ["live", "", ""],
  stale: ["stale", "No new frame", "The picture is old."],
  lost: ["camera lost", "Camera lost", "The runtime keeps trying to open it again."],
  gone: ["no connection", "No connection", "The run has ended, or the network is down."],
};

function renderState() {
  const [name, since] = state(), [pill, alarm, more] = SAYS[name] || SAYS.stale;
  document.body.dataset.state = name;
  setText($("state-text"), pill);
  $("alarm").hidden = !alarm;
  setText($("alarm-text"), since >= 1 ? `${alarm} for ${seconds(since)}` : alarm);
  setText($("alarm-more"), more);
  if (name !== "live") setFigure($("age"), shown > 0 && since >= 1 ? seconds(since) : "–", "");
  document.title = (name === "live" ? "" : `${pill} · `) + (report ? report.title : "rtda-deploy");
}

function render() {
  const live = report.state === "live", age = report.age_ms;
  setText($("title"), report.title);
  const size = report.size ? `${report.size[0]}×${report.size[1]}` : "";
  setText($("source"), [report.title.includes(report.source) ? "" : report.source, size, report.provider].filter(Boolean).join(" · "));
  setFigure($("fps"), live ? report.fps.toFixed(1) : "–", "");
  if (live) setFigure($("age"), age.now === null ? "–" : milliseconds(age.now), age.now === null ? "" : "ms");
  const all = report.frames + report.dropped;
  setFigure($("dropped"), String(report.dropped), all && report.dropped ? `${percent(report.dropped / all)}` : "");
  setFigure($("losses"), String(report.losses), "×");
  setText($("age-range"), age.p50 === null ? "" : `p50 ${milliseconds(age.p50)} · p95 ${milliseconds(age.p95)}`);
  $("latency").hidden = !report.ages_ms.length; // a recording has no age
  renderSpark(report.ages_ms, age);
  renderStages(report.stages_ms);
  renderShift(report.shift);
  renderShadow(report.shadow);
  renderLegend();
  for (const button of document.querySelectorAll(".modes button"))
    button.hidden = button.dataset.mode === "compare" && !report.modes.includes("compare");
  markLast();
  PANES.compare = report.titles;
  renderPanes();
  const seen = report.classes.filter(c => c.share >= 0.01).sort((a, b) => b.share - a.share).slice(0, 5);
  canvas.setAttribute("aria-label", `${mode}, ${report.state}: ` + seen.map(c => `${c.name} ${percent(c.share)}`).join(", "));
}

function renderSpark(values, age) {
  const top = Math.max(1, ...values) * 1.08, step = values.length > 1 ? 240 / (values.length - 1) : 0;
  const points = values.map((value, i) => `${(i * step).toFixed(1)},${(56 - 54 * value / top).toFixed(1)}`);
  $("spark-line").setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
  $("spark-area").setAttribute("d", points.length > 1 ? `M0,56L${points.join("L")}L240,56z` : "");
  if (age.p50 !== null) $("spark").setAttribute("aria-label",
    `Age of the last ${values.length} results: median ${milliseconds(age.p50)}, 95th percentile ${milliseconds(age.p95)}, at most ${milliseconds(age.max)} milliseconds`);
}

// The alarm that the world has changed: a badge, and its evidence over the newest blocks; at 1 it is raised, 1.5 is the most.
function renderShift(shift) {
  $("shift").hidden = $("evidence").hidden = !shift;
  if (!shift) return;
  const raised = shift.state === "unfamiliar";
  document.body.dataset.shift = shift.state;
  setText($("shift"), raised ? `unfamiliar · ${shift.signal}` : shift.blocks ? "familiar" : "familiar so far");
  setText($("evidence-now"), shift.blocks ? `${percent(shift.evidence)} of the alarm` : "no block yet");
  const why = shift.blocks ? `${shift.signal} at ${shift.distance.toFixed(1)} × the furthest known · ${shift.state} for ${seconds(shift.since_s)}` : "";
  setText($("evidence-why"), why);
  const step = shift.curve.length > 1 ? 240 / (shift.curve.length - 1) : 0;
  const points = shift.curve.map((value, i) => `${(i * step).toFixed(1)},${(56 - 56 * Math.min(value, 1.5) / 1.5).toFixed(1)}`);
  $("evidence-line").setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
  $("evidence-area").setAttribute("d", points.length > 1 ? `M0,56L${points.join("L")}L240,56z` : "");
  $("evidence-chart").setAttribute("aria-label", `Evidence of the last ${shift.curve.length} blocks, now ${percent(shift.evidence)} of the alarm: ${why}`);
}

// A candidate beside the deployed model: how far their masks agree.
function renderShadow(shadow) {
  $("shadow").hidden = !shadow;
  if (!shadow) return;
  const [agreed, more] = $("shadow").children;
  setText(agreed, shadow.error ? "stopped" : shadow.compared ? percent(shadow.agreement) : "–");
  setText(more, shadow.error || `of the pixels alike in ${shadow.compared} frames, ${shadow.dropped} left out`);
}

function renderStages(stages) {
  const box = $("stages"), names = Object.keys(stages).filter(name => name !== "capture");
  if (box.childElementCount !== names.length) {
    box.replaceChildren();
    for (const name of names) { box.append(`${SHORT[name] || name} `); box.append(document.createElement("b")); }
  }
  names.forEach((name, i) => setText(box.children[i], milliseconds(stages[name])));
}

function renderLegend() {
  const list = $("legend"), two = report.classes.some(c => "compared" in c);
  const rows = [...report.classes];
  if (report.unlabelled >= SEEN) rows.push({ name: "unlabelled (of the picture)", colour: "", share: report.unlabelled });
  for (const c of rows) if (Math.max(c.share, c.compared || 0) >= SEEN) everSeen.add(c.name);
  const listed = rows.length > MANY_CLASSES ? rows.filter(c => everSeen.has(c.name)) : rows;
  const names = listed.map(c => c.name).join("\n") + two;
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    list.replaceChildren(...listed.map(c => legendRow(c, two)));
  }
  listed.forEach((c, i) => {
    const row = list.children[i];
    row.classList.toggle("absent", Math.max(c.share, c.compared || 0) < SEEN);
    row.dataset.share = c.share;
    if (!two) row.querySelector(".fill").style.transform = `scaleX(${Math.min(1, c.share)})`;
    const shares = row.querySelectorAll(".share");
    setText(shares[0], percent(c.share));
    if (two) setText(shares[1], "compared" in c ? percent(c.compared) : "–");
  });
  setText($("legend-note"), two ? "first | second model" : "share of the labelled pixels");
  const unseen = rows.length - listed.length;
  $("unseen").hidden = unseen === 0;
  setText($("unseen"), `and ${unseen} classes not seen so far`);
}

function legendRow(c, two) {
  const row = document.createElement("li");
  if (two) row.className = "two";
  const add = (kind, text) => { const e = document.createElement("span"); e.className = kind; e.textContent = text; row.append(e); return e; };
  add("swatch", "").style.background = c.colour || "repeating-linear-gradient(45deg, #888 0 3px, #444 3px 6px)";
  const name = add("name", c.name);
  name.title = c.name;
  if (two) add("share", "");
  else { const track = add("track", ""); track.setAttribute("aria-hidden", "true"); const fill = document.createElement("span"); fill.className = "fill"; track.append(fill); }
  add("share", "");
  return row;
}

// ---- words

function setText(element, text) { if (element.textContent !== text) element.textContent = text; }
function setFigure(element, value, unit) {
  const text = value + unit;
  if (element.dataset.text === text) return;
  element.dataset.text = text;
  element.textContent = value;
  if (unit) { const small = document.createElement("small"); small.textContent = unit; element.append(small); }
}
function percent(share) { return share === 0 ? "0 %" : share < 0.01 ? "< 1 %" : `${Math.round(100 * share)} %`; }
function milliseconds(value) { return value >= 100 ? value.toFixed(0) : value.toFixed(1); }
function seconds(value) {
  const s = Math.floor(value);
  return s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
}

// ---- what can be pressed

function choose(next) {
  const button = document.querySelector(`.modes button[data-mode="${next}"]`);
  if (!button || button.hidden || next === mode) return;
  mode = next;
  remember("mode", mode);
  stage.dataset.mode = mode;
  for (const each of document.querySelectorAll(".modes button")) each.setAttribute("aria-pressed", String(each.dataset.mode === mode));
  renderPanes();
  $("snapshot").href = `snapshot.png?mode=${mode}`;
  newest = null;
  shown = 0;
  if (reading) reading.abort();
}

function renderPanes() {
  const labels = PANES[mode] || [];
  ["pane-a", "pane-b"].forEach((id, i) => labels[i] ? $(id).dataset.label = labels[i] : delete $(id).dataset.label);
}

function markLast() {
  const visible = [...document.querySelectorAll(".modes button")].filter(button => !button.hidden);
  visible.forEach((button, i) => button.classList.toggle("last", i === visible.length - 1));
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (stage.requestFullscreen) stage.requestFullscreen().catch(() => {});
}

function toggleTheme() {
  const dark = getComputedStyle(document.documentElement).colorScheme.startsWith("dark");
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  remember("theme", document.documentElement.dataset.theme);
}

function remember(name, value) { try { localStorage.setItem(`rtda-${name}`, value); } catch { /* private window */ } }
function recall(name) { try { return localStorage.getItem(`rtda-${name}`); } catch { return null; } }

document.querySelector(".modes").addEventListener("click", event => {
  const button = event.target.closest("button");
  if (button) choose(button.dataset.mode);
});
$("full").addEventListener("click", fullScreen);
$("theme").addEventListener("click", toggleTheme);
if (!stage.requestFullscreen) $("full").hidden = true; // iPhones have it for videos only

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const modes = { 1: "overlay", 2: "mask", 3: "side", 4: "compare" };
  if (event.key in modes) choose(modes[event.key]);
  else if (event.key === "s") $("snapshot").click();
  else if (event.key === "f") fullScreen();
  else if (event.key === "d") toggleTheme();
  else return;
  event.preventDefault();
});

const theme = recall("theme");
if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
markLast();
if (recall("mode") in { mask: 1, side: 1 }) choose(recall("mode"));
keepReading();
poll();
setInterval(renderState, 250);
