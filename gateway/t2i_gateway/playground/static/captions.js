// Prompts to try. Those for the embedded model use only words that it knows.

const pick = (list) => list[Math.floor(Math.random() * list.length)];
const COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "gray"];
const SHAPES = ["circle", "square", "triangle", "ring", "cross", "diamond"];
const SIZES = ["small", "large", "big", "tiny"];
const PATTERNS = ["plain", "striped", "checked", "dotted", "speckled"];
const RELATIONS = ["left of", "right of", "above", "below"];

function scene() {
  const ground = pick(COLOURS);
  const [first, second] = COLOURS.filter((colour) => colour !== ground).sort(() => Math.random() - 0.5);
  const thing = (colour) => `a ${pick(SIZES)} ${colour} ${pick(SHAPES)}`;
  return `${thing(first)} ${pick(RELATIONS)} ${thing(second)} on a ${pick(PATTERNS)} ${ground} background`;
}

const SUBJECTS = ["a lighthouse", "an old bicycle", "a fox", "a tea house", "a sailing boat", "a library", "a mountain hut"];
const TIMES = ["at dawn", "in the rain", "under a full moon", "in autumn", "in deep snow", "at noon"];
const STYLES = ["oil on canvas", "watercolour", "a photograph with soft light", "a woodcut", "a pencil drawing"];

export function example(model) {
  return model === "scenes" ? scene() : `${pick(SUBJECTS)} ${pick(TIMES)}, ${pick(STYLES)}`;
}

// Few enough that prompts come back and resemble each other, as they do in real traffic.
export function examples(model, count) {
  return Array.from({ length: count }, () => example(model));
}
