// Exactly one section of the page is shown at a time.

const find = (id) => document.getElementById(id);

/** Shows a section and moves the focus to its heading, so that a screen reader begins there. */
export function show(id) {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== id;
  const heading = find(id).querySelector("h1");
  heading?.focus({ preventScroll: true });
  scrollTo(0, 0);
}

/** Shows a section until its button is pressed. */
export function untilPressed(id) {
  show(id);
  const button = find(id).querySelector("button.main");
  return new Promise((resolve) => button.addEventListener("click", resolve, { once: true }));
}

/** Fills the [data-text] element of that name; hidden when there is nothing to say. */
export function say(name, text) {
  const element = document.querySelector(`[data-text="${name}"]`);
  element.textContent = text;
  element.hidden = !text;
}
