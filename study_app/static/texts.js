// What scripts say, in the study's language: the server wrote it into the page (base.html).

const texts = JSON.parse(document.getElementById("texts").textContent);

/** The text of that name, with its {places} filled in. */
export const text = (name, values = {}) => texts[name].replace(/\{(\w+)\}/g, (_, place) => values[place]);
