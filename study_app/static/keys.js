// The keys of an answer, by the letter on the key, or by its place where the layout has other letters.

const LETTERS = { f: "left", arrowleft: "left", j: "right", arrowright: "right", t: "tie", arrowdown: "tie", s: "skip" };
const PLACES = { KeyF: "left", KeyJ: "right" };

/** "left", "right", "tie", "skip" or undefined. */
export function choiceOfKey({ key, code, ctrlKey, altKey, metaKey }) {
  return ctrlKey || altKey || metaKey ? undefined : (LETTERS[key.toLowerCase()] ?? PLACES[code]);
}
