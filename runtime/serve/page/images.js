// Images that are dropped on the page or chosen, located one after the other.
"use strict";

const HEAT = 300, LOCATED = 50;
const located = [];

async function locate(file) {
  const refused = text => alertOf(`of ${file.name}`, text, { bad: true, closes: true });
  alertOf(`of ${file.name}`, null);
  if (file.size > server.state.max_bytes) return refused(`${file.name} has more than ${(server.state.max_bytes / 1e6).toFixed(0)} MB.`);
  alertOf("file", `${file.name} is being located.`);
  try {
    const answer = await asked(file);
    if (answer.error) refused(answer.error);
    else await showLocated(file, answer);
  } catch {
    refused(`${file.name}: the server does not answer.`);
  } finally {
    alertOf("file", null);
  }
}

async function asked(file) {
  const form = new FormData();
  form.append("image", file);
  for (;;) {
    const response = await fetch(`/v1/locate?top=${server.state.top}&heat=${HEAT}`, { method: "POST", body: form });
    if (response.status === 401) location.assign("/login");
    if (response.status !== 503) return response.json();
    alertOf("file", `${file.name} waits: the server is busy.`);
    await new Promise(resolve => setTimeout(resolve, 1000 * Number(response.headers.get("Retry-After") ?? 2)));
  }
}

async function showLocated(file, answer) {
  const within = Object.fromEntries((answer.fix?.within ?? []).map(each => [each.share, each.metres]));
  const event = {
    image: file.name, time_s: null, state: answer.fix ? "fix" : "no fix", lat: answer.fix?.lat ?? null, lon: answer.fix?.lon ?? null,
    heading: answer.fix?.heading ?? null, within_68_m: within[0.68] ?? null, within_95_m: within[0.95] ?? null, answer,
  };
  const picture = await createImageBitmap(file).catch(() => null);
  const show = () => {
    follow(false);
    showAnswer(event, picture, "located");
    if (event.lat !== null) focusOn(event);
  };
  show();
  showTimes(answer.milliseconds);
  const item = put(element("located"), "li"), line = button(item, show);
  put(line, "span", file.name);
  put(line, "span", event.lat === null ? "no fix" : `${event.lat.toFixed(5)}, ${event.lon.toFixed(5)}`, "faint");
  element("images").hidden = false;
  located.push(item);
  if (located.length > LOCATED) located.shift().remove();
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
  locateAll([...event.dataTransfer.files]);
});
element("file").addEventListener("change", event => { locateAll([...event.target.files]); event.target.value = ""; });
