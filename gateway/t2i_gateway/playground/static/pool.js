// The picture of the pool: workers, the mix, four numbers with their last minute.

import { at, element } from "./dom.js";
import { levelWords, percent, seconds } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const EXACT_HUE = 245; // of oklch
const CHEAPEST_HUE = 50;
const SAMPLES = 60;
const MANY = 8; // workers, beyond which their boxes are small
const kept = new Map(); // of each tile

const TILES = [
  ["Waiting for a worker", (pool) => pool.queued, (value) => String(value), () => "requests"],
  ["95 of 100 took at most", (pool) => pool.p95_s, seconds, (pool) => `target ${seconds(pool.slo_s)}`],
  ["Mean expected quality", (pool) => pool.mean_quality_percent, (value) => percent(value, 1), (pool) => `floor ${percent(pool.min_quality_percent)}`],
  ["Began from the cache", (pool) => pool.from_cache_fraction, (value) => percent(100 * value), () => "of the images"],
];

export function showPool(pool) {
  const full = pool.levels[0].num_inference_steps;
  const ready = pool.workers.filter((one) => one.state === "ready").length;
  at("pool-name").textContent = pool.pool;
  at("summary").textContent =
    `${ready} of ${pool.workers.length} workers ready. ` +
    (pool.full_rps > 0 ? `With every step they draw about ${rate(pool.full_rps)} images a second.` : "");
  at("workers").classList.toggle("many", pool.workers.length > MANY);
  at("workers").replaceChildren(...pool.workers.map(workerBox));
  showMix(pool, full);
  showHistory(pool);
  TILES.forEach(([name, read, format, note], index) => showTile(index, name, read(pool), format, note(pool)));
}

export const rate = (rps) => (rps < 10 ? rps.toFixed(1) : rps.toFixed(0));

function workerBox(worker) {
  const box = element("li", "", worker.state === "ready" ? "worker" : "worker off");
  box.append(element("strong", worker.name), element("span", worker.state, "state"));
  if (worker.model) box.append(element("span", `model ${worker.model}`, "hint"));
  const places = element("span", "", "places");
  places.setAttribute("aria-hidden", "true");
  for (let place = 0; place < worker.places; place += 1) {
    places.append(element("i", "", place < worker.running ? "taken" : ""));
  }
  const waits = worker.waiting ? `, ${worker.waiting} wait` : "";
  box.append(places, element("span", `${worker.running} of ${worker.places} places${waits}`, "hint"));
  return box;
}

function hue(pool, index) {
  const last = Math.max(1, pool.levels.length - 1);
  return String(Math.round(EXACT_HUE + ((CHEAPEST_HUE - EXACT_HUE) * index) / last));
}

function showMix(pool, full) {
  const total = pool.levels.reduce((sum, level) => sum + level.served, 0);
  const rows = pool.levels.map((level, index) => ({ level, index, words: levelWords(level, full) }));
  const served = rows.filter((row) => row.level.served);
  at("mix").replaceChildren(
    ...served.map((row) => {
      const part = element("span", "");
      part.style.setProperty("--hue", hue(pool, row.index));
      part.style.flexGrow = String(row.level.served);
      return part;
    }),
  );
  const told = served.map((row) => `${row.words}: ${percent((100 * row.level.served) / total)}`).join("; ");
  at("mix").setAttribute("aria-label", told || "Nothing was served yet");
  const lines = rows.map((row) => legendLine(row.words, row.level.served, hue(pool, row.index)));
  at("legend").replaceChildren(...lines, legendLine("refused or failed", pool.refused, null));
}

function legendLine(words, count, hueOf) {
  const line = element("li", "", count ? "" : "none");
  const mark = element("i", "", hueOf === null ? "refused" : "");
  if (hueOf !== null) mark.style.setProperty("--hue", hueOf);
  line.append(mark, element("span", words), element("b", String(count)));
  return line;
}

// One column for each second: the levels from the bottom, exact first, what was refused on top.
function showHistory(pool) {
  const peak = Math.max(4, ...pool.seconds.map((counts) => counts.reduce((sum, count) => sum + count, 0)));
  const paths = pool.seconds[0].map(() => "");
  pool.seconds.forEach((counts, x) => {
    let top = 100;
    counts.forEach((count, level) => {
      const height = (100 * count) / peak;
      top -= height;
      if (count) paths[level] += `M${x} ${top.toFixed(2)}h.94v${height.toFixed(2)}h-.94z`;
    });
  });
  at("history").replaceChildren(
    ...paths.map((path, level) => {
      const drawn = document.createElementNS(SVG, "path");
      drawn.setAttribute("d", path);
      if (level < pool.levels.length) drawn.style.setProperty("--hue", hue(pool, level));
      else drawn.classList.add("refused");
      return drawn;
    }),
  );
  at("peak").textContent = `top: ${peak} a second`;
}

function showTile(index, name, value, format, note) {
  const samples = [...(kept.get(name) ?? []), value].slice(-SAMPLES);
  kept.set(name, samples);
  const tile = at("tiles").children[index] ?? at("tiles").appendChild(makeTile(name));
  tile.querySelector("b").textContent = value === null ? "–" : format(value);
  tile.querySelector(".hint").textContent = note;
  tile.querySelector("polyline").setAttribute("points", points(samples));
}

function makeTile(name) {
  const tile = element("div", "", "tile");
  const line = document.createElementNS(SVG, "svg");
  line.setAttribute("viewBox", "0 0 60 20");
  line.setAttribute("preserveAspectRatio", "none");
  line.setAttribute("aria-hidden", "true");
  line.append(document.createElementNS(SVG, "polyline"));
  tile.append(element("span", name, "name"), element("b", "–"), element("span", "", "hint"), line);
  return tile;
}

function points(samples) {
  const known = samples.filter((value) => value !== null);
  const low = Math.min(...known, Infinity);
  const span = Math.max(...known, -Infinity) - low || 1;
  return samples
    .map((value, index) => (value === null ? "" : `${SAMPLES - samples.length + index},${(18 - (16 * (value - low)) / span).toFixed(1)}`))
    .join(" ");
}
