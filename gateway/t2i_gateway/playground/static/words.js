// Sentences about levels, decisions and times.

const WHY = {
  NoNeighbour: "Nothing similar is cached, and no cheaper level is harmless for this prompt. The pool had room for all steps.",
  NothingHarmless: "A similar image is cached, but no cheaper level is harmless for this prompt. The pool had room for all steps.",
  SimilarCached: "A similar image is cached, and beginning from it costs this prompt no quality to speak of.",
  SameImageCached: "This prompt ran with this seed before, so the same image comes out of fewer steps.",
  ShortSchedule: "A shorter schedule costs this prompt no quality to speak of.",
  LessComputed: "Computing less in each step costs this prompt no quality to speak of.",
  ExactRequested: "You asked for the highest quality.",
  ScheduleRequested: "The request fixed the number of steps.",
  ModelRequested: "You asked for this model.",
  OtherModel: "Another model of the pool costs this prompt no quality to speak of.",
  ModelGone: "No ready worker held the model that it was meant for, so another one drew it.",
  Unmeasured: "Cheaper levels were not measured for such images.",
  Planned: "The pool's fixed mix drew this level.",
  Load: "The pool was busy, so it saved steps where they cost the least quality.",
  Deadline: "A dearer level would not have met the deadline.",
  LatentElsewhere: "The workers that hold the similar image were busier than the others.",
};

export const steps = (count) => `${count} ${count === 1 ? "step" : "steps"}`;
export const percent = (value, digits = 0) => `${value.toFixed(digits)}\u00a0%`;
export const seconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(0)}\u00a0s`;

// A level in a few words; `full`: steps of the exact one. Another model than the pool's own is named by the phrase.
export function levelWords(level, full) {
  const { skipped_steps: skipped, num_inference_steps: all, phrase } = level;
  const [, ...more] = phrase.replace(/computing steps (\d+(?:, \d+)*)/, (_, listed) => `computing ${listed.split(", ").length} of them`).split(", ");
  const head = skipped
    ? `skips ${skipped} of ${all}, from a similar image`
    : level.model ? `${steps(all)}`
    : all === full
      ? more.length ? `${full} steps` : `exact, all ${full} steps`
      : `${all} steps instead of ${full}`;
  return [head, ...more].join(", ");
}

export function sentence(text) {
  const whole = text.trim();
  return whole && whole[0].toUpperCase() + whole.slice(1) + (/[.!?]$/.test(whole) ? "" : ".");
}

function qualityWords(quality) {
  if (quality === null) return "Nobody measured it.";
  return quality >= 99.95 ? "As an exact image's." : `${percent(quality, 1)} of an exact image's, or more.`;
}

// What is told about an image: pairs of a heading and a sentence.
export function story(told, full, sloS) {
  const { served_level: served, timings_ms: ms, message, expected_quality_percent: quality } = told;
  const computed = served.num_inference_steps - served.skipped_steps;
  const shorter = full - served.num_inference_steps;
  const forecasts = served.phrase.includes("computing");
  const why = WHY[told.reason] ?? "More steps ran than planned, because the cached image could not be had.";
  const rest = ms.total - ms.queue - ms.wait - ms.denoise - ms.encode;
  return [
    ["Served", sentence(levelWords(served, full))],
    ["Why", why],
    [
      "Skipped",
      served.skipped_steps
        ? `${served.skipped_steps} of ${full} steps: it began from a cached image. ${sentence(`${steps(computed)} ran`)}`
        : served.model
          ? `Nothing was taken from the cache, which is of the pool's own model.`
        : shorter > 0
          ? `Nothing was taken from the cache; a schedule of ${steps(served.num_inference_steps)} saved ${shorter}.`
          : forecasts
            ? "Some steps were not computed but forecast from those before."
            : "Nothing. Every step ran.",
    ],
    ["Expected quality", qualityWords(quality)],
    [
      "Time",
      `${seconds(ms.total / 1000)} in all, the target is ${seconds(sloS)}. ` +
        `Waiting ${seconds((ms.queue + ms.wait) / 1000)}, denoising ${seconds(ms.denoise / 1000)}, ` +
        `the rest ${seconds((ms.encode + Math.max(0, rest)) / 1000)}.`,
    ],
    ["Nearest cached prompt", sentence(message.split("; ")[0])],
  ];
}

// A refusal for people.
export function problemWords(problem) {
  const wait = problem.retryAfterS === null ? "" : ` Try again in ${Math.max(1, Math.ceil(problem.retryAfterS))} s.`;
  const intro = { 429: "The pool is full. ", 503: "No worker can take it. ", 504: "It could not be drawn in time. " };
  const told = problem.message.replace(/^[A-Z][A-Za-z]+: /, ""); // without the reason's code
  return `${intro[problem.status] ?? ""}${sentence(told)}${wait}`;
}
