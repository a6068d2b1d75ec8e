// Latency by stage of the last answers, as bars with a scale, the latest at the right.
"use strict";

const STRIP = 80;
const STAGES = { decode: "#5b8ff9", wait: "#a3a9b0", embed: "#e8843c", search: "#57a773" };
const times = [];

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
  const canvas = element("strip"), sharp = window.devicePixelRatio || 1, top = scaleOf(Math.max(...times.map(each => each.total)));
  canvas.width = canvas.clientWidth * sharp;
  canvas.height = canvas.clientHeight * sharp;
  element("scale").textContent = top < 1000 ? `${top} ms` : `${top / 1000} s`;
  const pen = canvas.getContext("2d"), width = canvas.width / STRIP;
  times.forEach((each, index) => {
    let up = canvas.height;
    for (const [name, looks] of Object.entries(STAGES)) {
      const high = each[name] / top * canvas.height;
      pen.fillStyle = looks;
      pen.fillRect((STRIP - times.length + index) * width, up - high, Math.max(1, width - sharp), high);
      up -= high;
    }
  });
}

// The least of 1, 2, 5, 10, 20 ... milliseconds that is no less.
function scaleOf(most) {
  const ten = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return [1, 2, 5, 10].find(each => each * ten >= most) * ten;
}
