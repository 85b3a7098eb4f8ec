"use strict";

// Tables: a column's title sorts by it; numbers first, then what has none.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const first = [...body.rows];
  const key = (row, place) => {
    const cell = row.cells[place];
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  };
  table.querySelectorAll("thead th").forEach((title, place) => {
    title.querySelector("button").addEventListener("click", () => {
      const down = title.getAttribute("aria-sort") === "ascending";
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      title.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sign = down ? -1 : 1;
      const rows = [...first].sort((one, two) => {
        const [a, b] = [key(one, place), key(two, place)];
        if (a !== null && b !== null) return sign * (a - b);
        if (a !== null || b !== null) return a !== null ? -1 : 1;
        return sign * one.cells[place].textContent.localeCompare(two.cells[place].textContent, undefined, { numeric: true });
      });
      body.append(...rows);
    });
  });
}

// Matrices: bytes on one scale for all rounds; 255 stands for no number.
const NONE = 255;
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const colour = (name) => {
  const code = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(code.slice(at, at + 2), 16));
};
const between = (one, two, part) => one.map((value, i) => value + (two[i] - value) * part);

function film(box) {
  const data = JSON.parse(box.querySelector("script").textContent);
  const slider = box.querySelector("input");
  const readout = box.querySelector(".readout");
  const shown = box.querySelector("output");
  const at = { row: 0, column: 0 };
  let told = null;
  const matrices = {};
  for (const name of ["similarity", "weights"]) {
    matrices[name] = { ...data[name], values: data[name].values.map(bytes) };
  }
  const who = (place) => {
    const members = data.clients.slice(place * data.together, (place + 1) * data.together);
    return members.length > 1 ? `${members[0]} … ${members[members.length - 1]}` : members[0];
  };

  function draw(canvas) {
    const { low, high, points, values } = matrices[canvas.dataset.name];
    const found = values[Number(slider.value)];
    const [paper, blue, red, none] = ["--paper", "--blue", "--red", "--none"].map(colour);
    const cell = Math.max(1, Math.floor(768 / points));
    canvas.width = canvas.height = points * cell;
    const pen = canvas.getContext("2d");
    for (let i = 0; i < found.length; i++) {
      const value = low + (found[i] / (NONE - 1)) * (high - low);
      const tint = found[i] === NONE ? none : between(paper, value < 0 ? red : blue, Math.abs(value) / high);
      pen.fillStyle = `rgb(${tint.map(Math.round).join(",")})`;
      pen.fillRect((i % points) * cell, Math.floor(i / points) * cell, cell, cell);
    }
    if (told === canvas) {
      pen.strokeStyle = getComputedStyle(canvas).color;
      const line = (pen.lineWidth = Math.max(2, Math.min(6, cell / 4)));
      pen.strokeRect(at.column * cell + line / 2, at.row * cell + line / 2, cell - line, cell - line);
    }
  }
  const all = () => box.querySelectorAll("canvas").forEach(draw);

  function tell() {
    if (!told) return;
    const { low, high, points, values } = matrices[told.dataset.name];
    const byte = values[Number(slider.value)][at.row * points + at.column];
    const number = byte === NONE ? "not in the colours" : (low + (byte / (NONE - 1)) * (high - low)).toPrecision(2);
    const word = told.dataset.name === "weights" ? "takes from" : "and";
    readout.textContent = `Round ${data.rounds[slider.value]}, ${told.dataset.name}: ${who(at.row)} ${word} ${who(at.column)}: ${number}`;
  }
  const go = (canvas, row, column) => {
    const last = matrices[canvas.dataset.name].points - 1;
    told = canvas;
    at.row = Math.min(last, Math.max(0, row));
    at.column = Math.min(last, Math.max(0, column));
    all();
    tell();
  };

  slider.addEventListener("input", () => {
    shown.textContent = data.rounds[slider.value];
    slider.setAttribute("aria-valuetext", `round ${data.rounds[slider.value]}`);
    all();
    tell();
  });
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  for (const canvas of box.querySelectorAll("canvas")) {
    canvas.addEventListener("pointermove", (event) => {
      const part = matrices[canvas.dataset.name].points / canvas.clientWidth;
      const [row, column] = [Math.floor(event.offsetY * part), Math.floor(event.offsetX * part)];
      if (told !== canvas || row !== at.row || column !== at.column) go(canvas, row, column);
    });
    canvas.addEventListener("focus", () => go(canvas, at.row, at.column));
    canvas.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (!step) return;
      event.preventDefault();
      go(canvas, at.row + step[0], at.column + step[1]);
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  all();
}
document.querySelectorAll(".film").forEach(film);

// The graph: weights below the slider's are not shown.
for (const graph of document.querySelectorAll(".graph")) {
  const slider = graph.querySelector("input");
  slider.addEventListener("input", () => {
    graph.querySelector("output").textContent = Number(slider.value).toPrecision(3);
    for (const edge of graph.querySelectorAll(".edge")) {
      edge.classList.toggle("off", Number(edge.dataset.weight) < Number(slider.value));
    }
  });
}
