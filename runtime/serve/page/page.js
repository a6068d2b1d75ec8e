// The live view: what /v1/state, /v1/stream and /v1/locate give, on a map. It asks its own server alone.
"use strict";

const HEAT = 300, TRAIL = 2000, STRIP = 80, LOCATED = 50;
const STAGES = { decode: "#5b8ff9", wait: "#a3a9b0", embed: "#e8843c", search: "#57a773" };
const LAYERS = { ground: "ground", heat: "scores of the nearest tiles", trail: "trail", candidates: "best tiles", circles: "68 and 95 % circles" };
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];  // viridis

const element = id => document.getElementById(id);
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name.replace("no fix", "none")}`).trim();
const shown = {}, times = [], located = [];
let state = null, following = true, fitted = false, last = null, segment = null, newest = 0;

// ---- the map
const map = L.map("map", { attributionControl: false, maxZoom: 22, preferCanvas: true }).setView([0, 0], 2);
L.control.scale({ imperial: false }).addTo(map);
const layers = Object.fromEntries(Object.keys(LAYERS).map(name => [name, L.layerGroup().addTo(map)]));
const fixLayer = L.layerGroup().addTo(map);
map.createPane("heat").style.zIndex = 350;
const heatRenderer = L.canvas({ pane: "heat" });

for (const [name, text] of Object.entries(LAYERS)) {
  const label = put(element("layers"), "label"), box = put(label, "input");
  box.type = "checkbox";
  box.id = `layer-${name}`;
  box.checked = true;
  box.addEventListener("change", () => box.checked ? layers[name].addTo(map) : layers[name].remove());
  label.append(text);
}

function put(parent, tag, text, name) {
  const child = document.createElement(tag);
  if (text !== undefined) child.textContent = text;
  if (name) child.className = name;
  parent.append(child);
  return child;
}

function ramp(share) {
  const place = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1), low = Math.min(Math.floor(place), RAMP.length - 2);
  const mixed = RAMP[low].map((value, index) => Math.round(value + (RAMP[low + 1][index] - value) * (place - low)));
  return `rgb(${mixed.join()})`;
}

function fitAll() {
  if (state?.gallery.bounds) {
    const [south, west, north, east] = state.gallery.bounds;
    map.fitBounds([[south, west], [north, east]], { animate: false, padding: [20, 20] });
  }
}

function showGallery(gallery) {
  state.gallery = gallery;
  layers.ground.clearLayers();
  if (gallery.ground) {
    L.tileLayer(`/v1/map/{z}/{x}/{y}?gallery=${gallery.number}`, { minZoom: gallery.zoom, maxZoom: 22, maxNativeZoom: 21 }).addTo(layers.ground);
  }
  alertOf("gallery", gallery.problem, true);
  const { bundle, version } = state;
  element("about").textContent = `${gallery.references.toLocaleString("en")} tiles, ${bundle.precision} on ${bundle.backend}, model ${bundle.embedding_id}; geodtr-export ${version}; map by Leaflet`;
  if (!fitted) fitAll();
}

function alertOf(key, text, bad) {
  document.querySelector(`#alerts [data-key="${key}"]`)?.remove();
  if (!text) return;
  const line = put(element("alerts"), "p", text, bad ? "bad" : "");
  line.dataset.key = key;
}

// ---- one answer, of the live view or of an image that was dropped
function showAnswer(event, picture) {
  const { answer } = event;
  last = { event, picture };
  element("state").textContent = event.state;
  element("state").className = `badge ${event.state}`;
  element("answer").hidden = answer === null;
  fixLayer.clearLayers();
  layers.circles.clearLayers();
  if (answer !== null) {
    element("name").textContent = event.image + (event.time_s === null ? "" : `, ${event.time_s > 1e9 ? new Date(1000 * event.time_s).toLocaleTimeString() : `${event.time_s.toFixed(1)} s`}`);
    if (picture) draw(picture, event.image);
    showTiles(answer);
    showHeat(answer.heat);
    alertOf("warning", answer.warning && `The model was not made for such images: ${answer.warning}.`);
  }
  showFix(event, answer);
}

function draw(picture, name) {
  const canvas = element("picture"), wide = picture.width, high = picture.height;
  const scale = Math.min(1, 800 / wide);
  canvas.width = Math.round(wide * scale) || 1;
  canvas.height = Math.round(high * scale) || 1;
  canvas.setAttribute("aria-label", `The image ${name}`);
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
}

function showTiles(answer) {
  const list = element("tiles"), focused = [...list.querySelectorAll("button")].indexOf(document.activeElement);
  list.replaceChildren();
  layers.candidates.clearLayers();
  answer.candidates.forEach((candidate, index) => {
    const item = put(list, "li"), button = put(item, "button"), image = put(button, "img");
    button.type = "button";
    image.alt = "";
    image.src = `/v1/tiles/${candidate.row}?gallery=${answer.gallery}`;
    put(button, "span", String(index + 1), "rank");
    put(button, "b", candidate.score.toFixed(3));
    const meter = put(button, "meter");
    Object.assign(meter, { min: 0, max: 1, value: Math.max(0, candidate.score) });
    put(button, "small", candidate.tile).title = candidate.tile;
    button.setAttribute("aria-label", `Tile ${index + 1}: ${candidate.tile}, score ${candidate.score.toFixed(3)}; show it on the map`);
    if (candidate.lat === null) return;
    const place = [candidate.lat, candidate.lon];
    button.addEventListener("click", () => { map.setView(place, Math.max(map.getZoom(), closeZoom())); });
    L.marker(place, { icon: L.divIcon({ className: "rank", html: String(index + 1), iconSize: [24, 24], iconAnchor: [30, 30] }), keyboard: false, zIndexOffset: -index }).bindTooltip(candidate.tile).addTo(layers.candidates);
  });
  if (focused >= 0) list.querySelectorAll("button")[focused]?.focus();
}

function closeZoom() {
  return Math.min(19, Math.max(state.gallery.zoom + 1, 15));
}

function showHeat(heat) {
  layers.heat.clearLayers();
  if (!heat.length) return;
  const scores = heat.map(each => each[2]), low = Math.min(...scores), span = Math.max(...scores) - low || 1;
  const radius = (state.gallery.spacing_m ?? 30) * 0.5;
  for (const [lat, lon, score] of [...heat].reverse()) {
    const share = (score - low) / span;
    L.circle([lat, lon], { radius, stroke: false, fillColor: ramp(share), fillOpacity: 0.35 + 0.4 * share, renderer: heatRenderer, interactive: false }).addTo(layers.heat);
  }
}

function showFix(event, answer) {
  const rows = [];
  if (event.lat !== null) {
    const place = [event.lat, event.lon], looks = colour(event.state);
    for (const [radius, opacity] of [[event.within_95_m, 0.1], [event.within_68_m, 0.16]]) {
      if (radius !== null) L.circle(place, { radius, color: looks, weight: 1.5, fillOpacity: opacity, interactive: false }).addTo(layers.circles);
    }
    if (event.heading !== null) {
      const angle = event.heading * Math.PI / 180, reach = Math.max(15, (state.gallery.spacing_m ?? 30) * 0.8), metre = 1 / 111195;
      const tip = [event.lat + reach * Math.cos(angle) * metre, event.lon + reach * Math.sin(angle) * metre / Math.cos(event.lat * Math.PI / 180)];
      L.polyline([place, tip], { color: looks, weight: 3, interactive: false }).addTo(fixLayer);
    }
    L.circleMarker(place, { radius: 7, color: "#fff", weight: 2, fillColor: looks, fillOpacity: 1 }).addTo(fixLayer);
    rows.push(["position", `${event.lat.toFixed(6)}, ${event.lon.toFixed(6)}`]);
  } else {
    rows.push(["position", "none"]);
  }
  if (event.heading !== null) rows.push(["heading", `${event.heading.toFixed(0)}°`]);
  if (event.within_68_m !== null) rows.push(["68 % within", metres(event.within_68_m)]);
  if (event.within_95_m !== null) rows.push(["95 % within", metres(event.within_95_m)]);
  if (answer?.fix) rows.push(["spread", metres(answer.fix.spread_m)], ["margin", answer.fix.margin.toFixed(3)]);
  if (answer?.known) {
    const known = [answer.known.lat, answer.known.lon];
    L.circleMarker(known, { radius: 6, color: colour("known"), weight: 3, fill: false }).bindTooltip("position in the image's EXIF").addTo(fixLayer);
    if (event.lat !== null) L.polyline([known, [event.lat, event.lon]], { color: colour("known"), weight: 2, dashArray: "4 4", interactive: false }).addTo(fixLayer);
    if (answer.known.error_m !== null) rows.push(["GNSS error", metres(answer.known.error_m)]);
  }
  if (event.within_68_m === null && answer?.uncalibrated) rows.push(["no radius", answer.uncalibrated]);
  const body = element("fix");
  body.replaceChildren();
  for (const [name, value] of rows) {
    const row = put(body, "tr");
    put(row, "th", name).scope = "row";
    put(row, "td", value);
  }
}

function metres(value) {
  return value < 1000 ? `${value.toFixed(value < 10 ? 1 : 0)} m` : `${(value / 1000).toFixed(1)} km`;
}

// ---- latency
function showTimes(stages) {
  times.push(stages);
  if (times.length > STRIP) times.shift();
  element("times").hidden = false;
  element("total").textContent = `${stages.total.toFixed(0)} ms`;
  const list = element("stages");
  list.replaceChildren();
  for (const [name, looks] of Object.entries(STAGES)) {
    const item = put(list, "li");
    put(item, "i").style.color = looks;
    item.append(`${name} ${stages[name].toFixed(1)} ms`);
  }
  const canvas = element("strip"), sharp = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * sharp;
  canvas.height = canvas.clientHeight * sharp;
  const pen = canvas.getContext("2d"), most = Math.max(...times.map(each => each.total), 1), width = canvas.width / STRIP;
  times.forEach((each, index) => {
    let up = canvas.height;
    for (const [name, looks] of Object.entries(STAGES)) {
      const high = each[name] / most * (canvas.height - 4 * sharp);
      pen.fillStyle = looks;
      pen.fillRect((STRIP - times.length + index) * width, up - high, Math.max(1, width - sharp), high);
      up -= high;
    }
  });
}

// ---- the stream
function addToTrail(lat, lon, name) {
  const place = [lat, lon], looks = colour(name);
  if (segment?.name === name) {
    segment.line.addLatLng(place);
  } else {
    const line = L.polyline(segment ? [segment.last, place] : [place], { color: looks, weight: 2.5, opacity: 0.8, dashArray: name === "tracking" || name === "fix" ? null : "3 6", interactive: false }).addTo(layers.trail);
    segment = { name, line };
  }
  segment.last = place;
  L.circleMarker(place, { radius: 2.5, stroke: false, fillColor: looks, fillOpacity: 0.9, interactive: false }).addTo(layers.trail);
  const drawn = layers.trail.getLayers();
  if (drawn.length > 1.5 * TRAIL) drawn.slice(0, TRAIL / 2).forEach(each => layers.trail.removeLayer(each));
}

function follow(on) {
  following = on;
  element("live").setAttribute("aria-pressed", String(on));
}

function listen() {
  const stream = new EventSource("/v1/stream");
  const on = (name, act) => stream.addEventListener(name, message => act(JSON.parse(message.data)));
  stream.addEventListener("open", () => alertOf("connection", null));
  stream.addEventListener("error", () => alertOf("connection", "The server does not answer. It is asked again.", true));
  on("source", source => {
    element("live").hidden = source.state === "none";
    element("source").textContent = source.state === "none" ? "No camera, video or folder: locate images below." : `${source.name}: ${source.state}`;
    alertOf("source", source.state === "lost" ? source.message : null, true);
    if (source.state === "none") element("state").textContent = "ready";
  });
  on("trail", trail => {
    layers.trail.clearLayers();
    segment = null, newest = 0;
    trail.points.forEach(point => addToTrail(...point));
  });
  on("gallery", showGallery);
  on("frame", async event => {
    if (event.lat !== null) addToTrail(event.lat, event.lon, event.state);
    if (event.answer) showTimes(event.answer.milliseconds);
    if (!following) return;
    newest = event.number;
    const picture = event.frame && await loaded(event.frame);
    if (!following || newest !== event.number) return;  // a picture may come after the next frame's
    showAnswer(event, picture);
    if (event.lat === null) return;
    if (!fitted) map.setView([event.lat, event.lon], closeZoom());
    else if (!map.getBounds().pad(-0.15).contains([event.lat, event.lon])) map.panTo([event.lat, event.lon]);
    fitted = true;
  });
}

function loaded(address) {
  return new Promise(resolve => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => resolve(null);
    image.src = address;
  });
}

// ---- images that are dropped or chosen
async function locate(file) {
  alertOf("file", `${file.name} is being located.`);
  if (file.size > state.max_bytes) return alertOf("file", `${file.name} has more than ${(state.max_bytes / 1e6).toFixed(0)} MB.`, true);
  const form = new FormData();
  form.append("image", file);
  let response;
  for (;;) {
    try {
      response = await fetch(`/v1/locate?top=${state.top}&heat=${HEAT}`, { method: "POST", body: form });
    } catch {
      return alertOf("file", `${file.name}: the server does not answer.`, true);
    }
    if (response.status !== 503) break;
    alertOf("file", `${file.name} waits: the server is busy.`);
    await new Promise(resolve => setTimeout(resolve, 1000 * Number(response.headers.get("Retry-After") ?? 2)));
  }
  const answer = await response.json();
  if (!response.ok) return alertOf("file", answer.error, true);
  alertOf("file", null);
  const within = Object.fromEntries((answer.fix?.within ?? []).map(each => [each.share, each.metres]));
  const event = {
    image: file.name, time_s: null, state: answer.fix ? "fix" : "no fix", lat: answer.fix?.lat ?? null, lon: answer.fix?.lon ?? null,
    heading: answer.fix?.heading ?? null, within_68_m: within[0.68] ?? null, within_95_m: within[0.95] ?? null, answer,
  };
  const picture = await createImageBitmap(file).catch(() => null);
  follow(false);
  showLocated(event, picture);
  showTimes(answer.milliseconds);
  const item = put(element("located"), "li"), button = put(item, "button");
  button.type = "button";
  put(button, "span", file.name);
  put(button, "span", event.lat === null ? "no fix" : `${event.lat.toFixed(5)}, ${event.lon.toFixed(5)}`, "faint");
  button.addEventListener("click", () => { follow(false); showLocated(event, picture); });
  located.push(item);
  if (located.length > LOCATED) located.shift().remove();
}

function showLocated(event, picture) {
  showAnswer(event, picture);
  if (event.lat !== null) map.setView([event.lat, event.lon], Math.max(map.getZoom(), closeZoom()), { animate: false });
  fitted = true;
}

async function locateAll(files) {
  for (const file of files) await locate(file);
}

const dragged = event => [...(event.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragover", event => { if (dragged(event)) { event.preventDefault(); element("drop").hidden = false; } });
addEventListener("dragleave", event => { if (event.relatedTarget === null) element("drop").hidden = true; });
addEventListener("drop", event => {
  if (!dragged(event)) return;
  event.preventDefault();
  element("drop").hidden = true;
  locateAll(event.dataTransfer.files);
});
element("file").addEventListener("change", event => { locateAll([...event.target.files]); event.target.value = ""; });
element("all").addEventListener("click", () => { fitted = true; fitAll(); });
element("live").addEventListener("click", () => follow(!following));
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
  if (event.key === "o") element("file").click();
  else if (event.key === "l") follow(!following);
  else if (event.key === "a") element("all").click();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (last) showAnswer(last.event, last.picture); });

(async () => {
  const response = await fetch("/v1/state");
  if (response.status === 401) return location.assign("/login");
  state = await response.json();
  if (!response.ok) return alertOf("connection", state.error, true);
  showGallery(state.gallery);
  listen();
})();
