// Puts the page together and looks at the pool once a second.

import { call, Problem, useToken } from "./api.js";
import { at, say } from "./dom.js";
import { Drawing } from "./draw.js";
import { Load } from "./load.js";
import { showPool } from "./pool.js";
import { problemWords } from "./words.js";

const LOOK_EVERY_MS = 1000;
const LOOK_LIMIT_MS = 5000;
let pool = null;
const load = new Load();
const drawing = new Drawing(() => pool, askToken);

function askToken(problem) {
  const first = at("access").hidden;
  at("access").hidden = false;
  say("access-problem", problemWords(problem));
  if (first) at("token").focus();
}

function takeIn(picture) {
  const first = pool === null;
  pool = picture;
  if (first) {
    at("size").append(...picture.sizes.map((size) => new Option(size)));
    if (!at("prompt").value) drawing.suggest();
  }
  showPool(picture);
  load.takeIn(picture);
}

async function look() {
  try {
    takeIn(await (await call("/v1/pool", { signal: AbortSignal.timeout(LOOK_LIMIT_MS) })).json());
    say("pool-problem", "");
    at("access").hidden = true;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) return askToken(error);
    say("pool-problem", problemWords(error));
  }
}

async function lookOn() {
  if (!document.hidden && at("access").hidden) await look();
  setTimeout(lookOn, LOOK_EVERY_MS);
}

at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(at("token").value.trim());
  look();
});
lookOn();
