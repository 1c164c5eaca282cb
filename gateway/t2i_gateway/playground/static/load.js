// The slider: how much load the gateway makes itself. It is renewed while the page is open.

import { call, Problem } from "./api.js";
import { examples } from "./captions.js";
import { at, say } from "./dom.js";
import { rate } from "./pool.js";
import { problemWords } from "./words.js";

const TICKS_PER_FULL = 20; // of the slider, for as much as the pool draws with every step
const RENEW_EVERY_MS = 2000;
const PROMPTS = 100;

export class Load {
  constructor() {
    Object.assign(this, { rps: 0, fullRps: 0, prompts: [], timer: 0 });
    at("load").addEventListener("input", () => this.change());
    addEventListener("pagehide", () => this.rps && this.send(0, true));
  }

  takeIn(pool) {
    if (!this.rps) this.fullRps = pool.full_rps; // it moves under load, the slider must not
    if (!this.prompts.length) this.prompts = examples(pool.model, PROMPTS);
    at("load").disabled = !this.fullRps;
    const { drawn, refused, held_back: held } = pool.load;
    const now = pool.load.rps > 0 ? `Now ${rate(pool.load.rps)} a second` : "Now none";
    at("load-told").textContent =
      drawn || refused ? `${now}; since the gateway began: ${drawn} drawn, ${refused} refused${held ? `, ${held} not sent` : ""}.` : "";
    if (!this.rps) this.tell();
  }

  change() {
    this.rps = Math.min(1000, (Number(at("load").value) / TICKS_PER_FULL) * this.fullRps);
    this.tell();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.renew(), 100);
  }

  tell() {
    const times = Number(at("load").value) / TICKS_PER_FULL;
    const text = times ? `${rate(this.rps)}: ${times.toFixed(2)} × what the pool draws in full` : "none";
    at("load-value").textContent = text;
    at("load").setAttribute("aria-valuetext", text);
  }

  async renew() {
    await this.send(this.rps, false);
    clearTimeout(this.timer);
    if (this.rps) this.timer = setTimeout(() => this.renew(), RENEW_EVERY_MS);
  }

  async send(rps, keepalive) {
    try {
      await call("/playground/load", { json: { rps, prompts: rps ? this.prompts : [] }, keepalive });
      say("load-problem", "");
    } catch (error) {
      say("load-problem", error instanceof Problem ? problemWords(error) : String(error));
    }
  }
}
