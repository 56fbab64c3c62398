// What the server wrote into the page's <meta name="study">: numbers and texts by name.

const number = (text) => (/^\d+$/.test(text) ? Number(text) : text);
const { dataset } = document.querySelector('meta[name="study"]');

export const study = Object.fromEntries(Object.entries(dataset).map(([name, text]) => [name, number(text)]));

/** Where the study's pages and its API lie: "/s/<slug>". */
export const base = dataset.base;
