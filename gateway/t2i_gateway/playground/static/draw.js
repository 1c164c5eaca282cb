// The form and the image that comes of it.

import { call, eventsOf, Problem } from "./api.js";
import { example } from "./captions.js";
import { at, element } from "./dom.js";
import { problemWords, story } from "./words.js";

const FIELDS = ["prompt", "size", "quality", "seed"];
const LIVELY_PIXELS = 200; // smaller images are shown with sharp pixels

export class Drawing {
  // `pool()`: the last picture of the pool, or null. `onUnknown(problem)`: the caller must prove who it is.
  constructor(pool, onUnknown) {
    Object.assign(this, { pool, onUnknown, seed: "", running: false });
    at("draw").addEventListener("submit", (event) => {
      event.preventDefault();
      this.draw(at("seed").value.trim());
    });
    at("again").addEventListener("click", () => this.draw(this.seed));
    at("example").addEventListener("click", () => this.suggest());
    at("prompt").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("draw").requestSubmit();
    });
  }

  suggest() {
    at("prompt").value = example(this.pool()?.model ?? "scenes");
  }

  async draw(seed) {
    if (this.running) return;
    this.begin();
    try {
      const answer = await call("/v1/images/generations", { raw: bodyOf(seed) });
      for await (const event of eventsOf(answer)) this.takeIn(event, seed);
    } catch (error) {
      this.fail(error);
    } finally {
      this.running = false;
      at("submit").disabled = false;
      at("again").disabled = !this.seed;
    }
  }

  begin() {
    this.running = true;
    this.seed = "";
    at("submit").disabled = at("again").disabled = true;
    at("status").textContent = "Drawing …";
    at("strip").replaceChildren();
    at("story").replaceChildren();
    for (const name of [...FIELDS, "draw"]) this.tell(name, "");
  }

  takeIn(event, seed) {
    if (event.type === "error") throw new Problem(event.error.message);
    const url = `data:image/${event.output_format};base64,${event.b64_json}`;
    this.show(url, event.type.endsWith("partial_image") ? `step ${event.t2i.step}` : "done");
    if (event.type === "image_generation.completed") this.finish(event.t2i.images[0], seed);
  }

  show(url, caption) {
    const image = at("image");
    image.onload = () => image.classList.toggle("small", image.naturalWidth < LIVELY_PIXELS);
    image.src = url;
    image.alt = caption === "done" ? `Drawn: ${at("prompt").value}` : "A first sight of the image";
    image.hidden = false;
    at("empty").hidden = true;
    const item = document.createElement("li");
    const thumb = document.createElement("img");
    Object.assign(thumb, { src: url, alt: "" });
    item.append(thumb, caption);
    at("strip").append(item);
  }

  finish(told, seed) {
    const pool = this.pool();
    const full = pool?.levels[0].num_inference_steps ?? told.served_level.num_inference_steps;
    this.seed = seed || String(told.seed);
    const lines = [...story(told, full, pool?.slo_s ?? 0), ["Seed", this.seed]];
    at("story").replaceChildren(...lines.flatMap(([head, text]) => [element("dt", head), element("dd", text)]));
    at("status").textContent = `Done. ${lines[0][1]}`;
  }

  fail(error) {
    if (!(error instanceof Problem)) error = new Problem("The connection broke before the image was done.");
    at("status").textContent = "Not drawn.";
    if (error.status === 401) return this.onUnknown(error);
    const field = FIELDS.includes(error.param) ? error.param : "draw";
    this.tell(field, problemWords(error));
    if (field !== "draw") at(field).focus();
  }

  tell(name, text) {
    at(`${name}-problem`).textContent = text;
    if (name !== "draw") at(name).setAttribute("aria-invalid", String(Boolean(text)));
  }
}

// Seeds have up to 64 bits, more than a number of JavaScript holds, so digits go as they are.
function bodyOf(seed) {
  const asked = { prompt: at("prompt").value, stream: true, partial_images: 3 };
  for (const name of ["size", "quality"]) if (at(name).value !== "auto") asked[name] = at(name).value;
  const told = /^(0|[1-9]\d*)$/.test(seed) ? seed : JSON.stringify(seed);
  return seed ? JSON.stringify(asked).replace(/}$/, `,"seed":${told}}`) : JSON.stringify(asked);
}
