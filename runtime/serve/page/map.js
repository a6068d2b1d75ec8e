// The map: the gallery's ground, its layers, and what their colours mean.
"use strict";

const LAYERS = { ground: "ground", heat: "scores of the nearest tiles", trail: "trail", candidates: "best tiles", circles: "68 and 95 % circles" };
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];  // viridis
const TRAIL = 2000;

const map = L.map("map", { attributionControl: false, minZoom: 1, maxZoom: 22, preferCanvas: true }).setView([0, 0], 2);
const layers = Object.fromEntries(Object.keys(LAYERS).map(name => [name, L.layerGroup().addTo(map)]));
map.createPane("heat").style.zIndex = 350;
const heatRenderer = L.canvas({ pane: "heat" });
const trail = { points: [], segment: null };
let fitted = false;

L.control.scale({ imperial: false }).addTo(map);
for (const [name, text] of Object.entries(LAYERS)) {
  const label = put(element("layers"), "label"), box = put(label, "input");
  box.type = "checkbox";
  box.id = `layer-${name}`;
  box.checked = true;
  box.addEventListener("change", () => {
    box.checked ? layers[name].addTo(map) : layers[name].remove();
    explain(name, box.checked && layers[name].getLayers().length > 0);
  });
  label.append(text);
}

// ---- the legend
const legend = L.control({ position: "bottomright" });
legend.onAdd = () => element("legend");  // out of the panel
legend.addTo(map);
L.DomEvent.disableClickPropagation(element("legend"));
element("legend").open = innerWidth > 760;
element("ramp").style.background = `linear-gradient(90deg, ${RAMP.map(mixed => `rgb(${mixed})`)})`;

// A line of the legend, from the first time that the map shows such a thing.
function explain(name, shown = true) {
  for (const line of document.querySelectorAll(`#legend [data-of="${styleOf(name)}"]`)) line.hidden = !shown;
}

function ramp(share) {
  const place = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1), low = Math.min(Math.floor(place), RAMP.length - 2);
  const mixed = RAMP[low].map((value, index) => Math.round(value + (RAMP[low + 1][index] - value) * (place - low)));
  return `rgb(${mixed.join()})`;
}

// ---- the ground
function fitAll() {
  const { bounds } = server.state.gallery;
  if (bounds) map.fitBounds(corners(bounds), { animate: false, padding: [20, 20] });
}

function corners([south, west, north, east]) {
  return [[south, west], [north, east]];
}

function closeZoom() {
  return Math.min(19, Math.max(server.state.gallery.zoom + 1, 15));
}

// Its circles, or some tiles around it.
function focusOn(event) {
  const reach = Math.max(event.within_95_m ?? 0, 4 * (server.state.gallery.spacing_m ?? 30));
  map.fitBounds(L.latLng(event.lat, event.lon).toBounds(2.2 * reach), { maxZoom: closeZoom(), animate: false });
  fitted = true;
}

function showGallery(gallery) {
  const { bundle, version } = server.state;
  server.state.gallery = gallery;
  layers.ground.clearLayers();
  if (gallery.bounds) {
    L.rectangle(corners(gallery.bounds), { color: colour("faint"), weight: 1.5, dashArray: "6 4", fill: false, interactive: false }).addTo(layers.ground);
  }
  if (gallery.ground) {
    L.tileLayer(`/v1/map/{z}/{x}/{y}?gallery=${gallery.number}`, { minZoom: gallery.zoom - 2, minNativeZoom: gallery.zoom, maxZoom: 22, maxNativeZoom: 21 }).addTo(layers.ground);
  }
  alertOf("gallery", gallery.problem, { bad: true });
  alertOf("ground", gallery.bounds
    ? gallery.ground ? null : "The map has no ground: the images that the gallery was built from cannot be read. Positions are shown all the same."
    : "The gallery has no positions: the best tiles are shown, and nothing on the map.");
  element("about").textContent = `${gallery.references.toLocaleString("en")} tiles, ${bundle.precision} on ${bundle.backend}, model ${bundle.embedding_id}; geodtr-export ${version}; map by Leaflet`;
  if (!fitted) fitAll();
}

// ---- the trail
function addToTrail(lat, lon, name) {
  trail.points.push([lat, lon, name]);
  if (trail.points.length > 1.5 * TRAIL) showTrail(trail.points.slice(-TRAIL));
  else drawTrail(lat, lon, name);
}

function showTrail(points) {
  layers.trail.clearLayers();
  Object.assign(trail, { points, segment: null });
  points.forEach(point => drawTrail(...point));
}

function drawTrail(lat, lon, name) {
  const place = [lat, lon], looks = colour(name), { segment } = trail;
  if (segment?.name === name) {
    segment.line.addLatLng(place);
    segment.last = place;
  } else {
    const line = L.polyline(segment ? [segment.last, place] : [place], { color: looks, weight: 3, opacity: 0.9, dashArray: name === "tracking" || name === "fix" ? null : "3 6", interactive: false }).addTo(layers.trail);
    trail.segment = { name, line, last: place };
  }
  explain(name);
  L.circleMarker(place, { radius: 3, color: "#fff", weight: 1, fillColor: looks, fillOpacity: 1, interactive: false }).addTo(layers.trail);
}
