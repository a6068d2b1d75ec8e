// What the other files of the page share: elements, alerts, and the server's state as /v1/state gives it.
"use strict";

const server = { state: null };
const element = id => document.getElementById(id);
const styleOf = name => name === "no fix" ? "none" : name;  // the colour of a state
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${styleOf(name)}`).trim();

function put(parent, tag, text, name) {
  const child = document.createElement(tag);
  if (text !== undefined) child.textContent = text;
  if (name) child.className = name;
  parent.append(child);
  return child;
}

function button(parent, act, name) {
  const child = put(parent, "button", undefined, name);
  child.type = "button";
  child.addEventListener("click", act);
  return child;
}

// One line for each key, which a text replaces and none removes; `closes` lets the reader remove it.
function alertOf(key, text, { bad = false, closes = false } = {}) {
  [...element("alerts").children].find(line => line.dataset.key === key)?.remove();
  if (!text) return;
  const line = put(element("alerts"), "p", undefined, bad ? "bad" : "");
  line.dataset.key = key;
  put(line, "span", text);
  if (!closes) return;
  const close = button(line, () => line.remove(), "close");
  close.textContent = "×";
  close.setAttribute("aria-label", "Dismiss");
}

function metres(value) {
  return value < 1000 ? `${value.toFixed(value < 10 ? 1 : 0)} m` : `${(value / 1000).toFixed(1)} km`;
}

function ago(seconds) {
  if (seconds < 120) return `${Math.max(0, Math.floor(seconds))} s ago`;
  return seconds < 7200 ? `${Math.floor(seconds / 60)} min ago` : `${Math.floor(seconds / 3600)} h ago`;
}
