// Short ways to the page's elements.

export const at = (id) => document.getElementById(id);

export function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// A live region speaks at every change, so what is the same is left alone.
export function say(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}
