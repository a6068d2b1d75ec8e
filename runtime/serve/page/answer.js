// One answer, of the live view or of an image that was located: its position, its picture, its tiles and their scores.
"use strict";

const shown = { event: null, picture: null, whose: null };
const drawn = Object.fromEntries(["live", "located"].map(whose => [whose, { marks: L.layerGroup().addTo(map), circles: L.layerGroup().addTo(layers.circles) }]));

// `whose`: "live" or "located".
function showAnswer(event, picture, whose) {
  const { answer } = event;
  Object.assign(shown, { event, picture, whose });
  element("answer").hidden = false;
  element("whose").textContent = whose === "live" ? "Live frame" : "Located image";
  if (whose === "live") clear("located");
  drawPosition(event, whose);
  showPosition(event);
  if (answer === null) return;  // a track's position after its last frame
  element("frame").hidden = false;
  element("name").textContent = event.image + (event.time_s === null ? "" : `, ${event.time_s > 1e9 ? new Date(1000 * event.time_s).toLocaleTimeString() : `${event.time_s.toFixed(1)} s`}`);
  if (picture) drawPicture(picture, event.image);
  showTiles(answer);
  showHeat(answer.heat);
  alertOf("warning", answer.warning && `The model was not made for such images: ${answer.warning}.`);
}

function clear(whose) {
  drawn[whose].marks.clearLayers();
  drawn[whose].circles.clearLayers();
}

function drawPicture(picture, name) {
  const canvas = element("picture"), scale = Math.min(1, 800 / picture.width);
  canvas.width = Math.round(picture.width * scale) || 1;
  canvas.height = Math.round(picture.height * scale) || 1;
  canvas.setAttribute("aria-label", `The image ${name}`);
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
}

// ---- the tiles
function showTiles(answer) {
  const list = element("tiles"), focused = [...list.querySelectorAll("button")].indexOf(document.activeElement);
  list.replaceChildren();
  layers.candidates.clearLayers();
  explain("candidates", answer.candidates.some(each => each.lat !== null) && map.hasLayer(layers.candidates));
  answer.candidates.forEach((candidate, index) => {
    const { lat, lon, score, tile } = candidate, place = [lat, lon];
    const card = button(put(list, "li"), () => { if (lat !== null) map.setView(place, Math.max(map.getZoom(), closeZoom())); });
    const image = put(card, "img");
    image.alt = "";
    image.addEventListener("error", () => image.replaceWith(Object.assign(document.createElement("span"), { className: "none", textContent: "no picture" })));
    image.src = `/v1/tiles/${candidate.row}?gallery=${answer.gallery}`;
    put(card, "span", String(index + 1), "rank");
    put(card, "b", score.toFixed(3));
    Object.assign(put(card, "meter"), { min: 0, max: 1, value: Math.max(0, score) });
    put(card, "small", tile).title = tile;
    card.setAttribute("aria-label", `Tile ${index + 1}: ${tile}, score ${score.toFixed(3)}${lat === null ? "" : "; show it on the map"}`);
    if (lat === null) return;
    L.marker(place, { icon: L.divIcon({ className: "rank", html: String(index + 1), iconSize: [24, 24], iconAnchor: [30, 30] }), keyboard: false, zIndexOffset: -index }).bindTooltip(tile).addTo(layers.candidates);
  });
  if (focused >= 0) list.querySelectorAll("button")[focused]?.focus();
}

function showHeat(heat) {
  layers.heat.clearLayers();
  explain("heat", heat.length > 0 && map.hasLayer(layers.heat));
  if (!heat.length) return;
  const scores = heat.map(each => each[2]), low = Math.min(...scores), high = Math.max(...scores), span = high - low || 1;
  const radius = (server.state.gallery.spacing_m ?? 30) * 0.5;
  for (const [lat, lon, score] of [...heat].reverse()) {
    const share = (score - low) / span;
    L.circle([lat, lon], { radius, stroke: false, fillColor: ramp(share), fillOpacity: 0.35 + 0.4 * share, renderer: heatRenderer, interactive: false }).addTo(layers.heat);
  }
  element("least").textContent = low.toFixed(2);
  element("most").textContent = high.toFixed(2);
}

// ---- the position; `looks` is its colour, grey for an old one
function drawPosition(event, whose, looks = colour(event.state)) {
  const { marks, circles } = drawn[whose], place = [event.lat, event.lon], exif = event.answer?.known;
  clear(whose);
  if (event.lat !== null) {
    for (const [radius, opacity] of [[event.within_95_m, 0.1], [event.within_68_m, 0.16]]) {
      if (radius === null) continue;
      L.circle(place, { radius, color: "#fff", weight: 5, opacity: 0.7, fill: false, interactive: false }).addTo(circles);  // seen on any ground
      L.circle(place, { radius, color: looks, weight: 2.5, fillOpacity: opacity, interactive: false }).addTo(circles);
    }
    if (event.heading !== null) {
      const angle = event.heading * Math.PI / 180, reach = Math.max(15, (server.state.gallery.spacing_m ?? 30) * 0.8), metre = 1 / 111195;
      const tip = [event.lat + reach * Math.cos(angle) * metre, event.lon + reach * Math.sin(angle) * metre / Math.cos(event.lat * Math.PI / 180)];
      L.polyline([place, tip], { color: looks, weight: 3, interactive: false }).addTo(marks);
    }
    const mark = whose === "live" ? { radius: 8, color: "#fff", weight: 2, fillColor: looks } : { radius: 7, color: looks, weight: 4, fillColor: "#fff" };
    L.circleMarker(place, { ...mark, fillOpacity: 1 }).bindTooltip(whose === "live" ? "live position" : event.image).addTo(marks);
    explain(whose === "live" ? event.state : "located");
  }
  explain("circles", event.within_95_m !== null && map.hasLayer(layers.circles));
  if (!exif) return;
  L.circleMarker([exif.lat, exif.lon], { radius: 6, color: colour("known"), weight: 3, fill: false }).bindTooltip("position in the image's EXIF").addTo(marks);
  if (event.lat !== null) L.polyline([[exif.lat, exif.lon], place], { color: colour("known"), weight: 2, dashArray: "4 4", interactive: false }).addTo(marks);
  explain("known");
}

function showPosition(event) {
  const { answer } = event, fix = answer?.fix, off = answer?.known?.error_m ?? null;
  const outside = off !== null && event.within_95_m !== null && off > event.within_95_m;
  const rows = [
    [["searching", "lost"].includes(event.state) ? "unsure position" : "position", event.lat === null ? "none" : `${event.lat.toFixed(6)}, ${event.lon.toFixed(6)}`],
    ["68 % within", event.within_68_m === null ? null : metres(event.within_68_m)],
    ["95 % within", event.within_95_m === null ? null : metres(event.within_95_m)],
    ["no radius", event.within_68_m === null ? answer?.uncalibrated : null],
    ["GNSS error", off === null ? null : metres(off) + (outside ? ", outside the 95 % circle" : "")],
    ["heading", event.heading === null ? null : `${event.heading.toFixed(0)}°`],
    ["spread", fix ? metres(fix.spread_m) : null, "How far the best tiles are from the position."],
    ["margin", fix ? fix.margin.toFixed(3) : null, "By how much the best place's score exceeds any other's."],
  ];
  const body = element("fix");
  body.replaceChildren();
  for (const [name, value, meaning] of rows) {
    if (!value) continue;
    const row = put(body, "tr"), head = put(row, "th", name);
    head.scope = "row";
    if (meaning) head.title = meaning;
    put(row, "td", value);
  }
}
