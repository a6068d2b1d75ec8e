// The live view: the server's stream, whether it can be trusted at this moment, and the keys.
"use strict";

const SILENT = 15, AGAIN = 2;  // seconds: longest silence of a server at work, and until it is asked again
const live = { following: true, connected: null, source: { state: "none" }, event: null, arrived: 0, heard: 0, stream: null };
const now = () => Date.now() / 1000;  // goes on while a phone sleeps, which performance.now does not

// What the badge says: a position is no use to somebody who cannot see that it is an old one.
function standing() {
  if (live.connected === null) return "connecting";
  if (!live.connected) return "no connection";
  switch (live.source.state) {
    case "none": return "ready";
    case "lost": return "no frames";
    case "starting": return "waiting";
    case "ended": return "ended";
    default: return live.event?.state ?? "waiting";
  }
}

function showStanding() {
  const state = standing(), current = state === live.event?.state;
  element("state").textContent = state;
  element("state").className = `badge ${{ "no connection": "lost", "no frames": "lost" }[state] ?? (current ? styleOf(state) : "none")}`;
  document.title = `${state} - geodtr live view`;
  if (live.event && current !== live.current) drawPosition(live.event, "live", current ? undefined : colour("none"));
  live.current = current;
  showAge();
}

function showAge() {
  element("age").textContent = live.event ? `, last frame ${ago(live.event.age_s + now() - live.arrived)}` : "";
}

function follow(on) {
  live.following = on;
  element("live").setAttribute("aria-pressed", String(on));
  if (on && live.event && shown.event !== live.event) showFrame(live.event);
}

async function showFrame(event) {
  const picture = event.frame && await loaded(event.frame);
  if (!live.following || live.event !== event) return;  // a picture may come after the next frame's
  showAnswer(event, picture, "live");
  live.current = true;
  showStanding();
  if (event.lat === null) return;
  if (!fitted) focusOn(event);
  else if (!map.getBounds().pad(-0.15).contains([event.lat, event.lon])) map.panTo([event.lat, event.lon]);
}

function loaded(address) {
  return new Promise(resolve => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => resolve(null);
    image.src = address;
  });
}

// ---- the stream
function showSource(source) {
  live.source = source;
  element("live").hidden = source.state === "none";
  element("source").textContent = source.state === "none" ? "No live source: locate images of your own." : `${source.name}: ${source.state}`;
  alertOf("source", source.state === "lost" ? source.message : null, { bad: true });
}

function takeFrame(event) {
  Object.assign(live, { event, arrived: now(), current: true });
  if (event.lat !== null) addToTrail(event.lat, event.lon, event.state);
  if (event.answer) showTimes(event.answer.milliseconds);
  if (live.following) showFrame(event);
  else drawPosition(event, "live");
}

function listen() {
  const stream = live.stream = new EventSource("/v1/stream");
  const on = (name, act) => stream.addEventListener(name, message => {
    live.heard = now();
    act(JSON.parse(message.data));
    showStanding();
  });
  stream.addEventListener("open", () => connect(true));
  stream.addEventListener("error", () => {
    stream.close();
    connect(false);
    setTimeout(begin, 1000 * AGAIN);
  });
  on("source", showSource);
  on("trail", each => {  // comes first, and again from a server that was started again
    showTrail(each.points);
    clear("live");
    live.event = null;
  });
  on("gallery", showGallery);
  on("frame", takeFrame);
  on("heartbeat", () => {});
}

function connect(connected, why = "The server does not answer. It is asked again.") {
  if (connected) live.heard = now();
  live.connected = connected;
  if (!connected) element("source").textContent = live.source.name ?? "";
  alertOf("connection", connected ? null : why, { bad: true });
  showStanding();
}

// Ask for everything again: a server that was started again may hold another gallery.
async function begin() {
  live.stream?.close();
  try {
    const response = await fetch("/v1/state", { signal: AbortSignal.timeout(1000 * SILENT) });
    if (response.status === 401) return location.assign("/login");
    const state = await response.json();
    if (!response.ok) throw new Error(state.error);
    server.state = state;
    showGallery(state.gallery);
    listen();
  } catch (error) {
    connect(false, error.name === "Error" ? error.message : undefined);
    setTimeout(begin, 1000 * AGAIN);
  }
}

setInterval(() => {
  showAge();
  if (!live.connected || now() - live.heard < SILENT) return;
  connect(false);  // a link that went down says nothing
  begin();
}, 1000);

element("all").addEventListener("click", () => { fitted = true; fitAll(); });
element("live").addEventListener("click", () => follow(!live.following));
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
  if (event.key === "o") element("file").click();
  else if (event.key === "l") element("live").click();
  else if (event.key === "a") element("all").click();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  showTrail(trail.points);
  if (shown.event) showAnswer(shown.event, shown.picture, shown.whose);
});
begin();
