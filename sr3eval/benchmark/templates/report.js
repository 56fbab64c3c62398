// The images of the run: a sorted, filtered list in pages, a window of each, and two methods compared in it.
// Opened from disk, a page may draw pictures but not read their pixels: differences are composited, never computed.

const LR = "_lr", HR = "_hr";
const $ = (id) => document.getElementById(id);
const methods = RUN.folders.filter(({ slug }) => slug !== LR && slug !== HR);
const hasHr = RUN.folders.some(({ slug }) => slug === HR);
const position = new Map(RUN.ids.map((id, index) => [id, index]));
const windows = new Map(); // by image id: the window that the reader chose, [x, y, width, height] in pixels of HR
let page = 0;
let shown = []; // ids after filter and sort

// Pictures

let loading = new Map(); // of this page; a browser holds them as long as it is shown

function address(slug, id) {
  return RUN.held[slug]?.[id] ?? `${RUN.base}/${slug}/${id.split("/").map(encodeURIComponent).join("/")}.png`;
}

function load(source) {
  if (!loading.has(source)) {
    const image = new Image();
    image.src = source;
    loading.set(source, image.decode().then(() => image));
  }
  return loading.get(source);
}

async function sizeOf(id) {
  if (RUN.samples[id]) return RUN.samples[id].size;
  const image = await load(address(hasHr ? HR : methods[0].slug, id));
  return [image.naturalWidth, image.naturalHeight];
}

function firstWindow(id, [width, height]) {
  if (RUN.samples[id]) return RUN.samples[id].window;
  if (Math.max(width, height) <= RUN.whole) return [0, 0, width, height];
  return around(width / 2, height / 2, RUN.side, RUN.side, [width, height]);
}

// A window with that centre, moved to lie inside the image.
function around(x, y, width, height, size) {
  [width, height] = [Math.min(width, size[0]), Math.min(height, size[1])].map((side) => Math.max(4, Math.round(side)));
  const clamp = (centre, side, whole) => Math.round(Math.min(Math.max(centre - side / 2, 0), whole - side));
  return [clamp(x, width, size[0]), clamp(y, height, size[1]), width, height];
}

async function draw(context, slug, id, box, size) {
  const sample = RUN.samples[id];
  if (sample?.crops?.[slug] && String(sample.window) === String(box)) {
    context.drawImage(await load(sample.crops[slug]), 0, 0);
    return;
  }
  const image = await load(address(slug, id));
  const scale = [image.naturalWidth / size[0], image.naturalHeight / size[1]]; // 1, but for LR
  const source = box.map((value, index) => value * scale[index % 2]);
  context.drawImage(image, ...source, 0, 0, box[2], box[3]);
}

// A canvas of the window's size in pixels; CSS enlarges it.
async function show(canvas, slug, id, box, size) {
  const hidden = document.createElement("canvas");
  [hidden.width, hidden.height] = [box[2], box[3]];
  const context = hidden.getContext("2d");
  context.imageSmoothingEnabled = false;
  await draw(context, slug, id, box, size);
  [canvas.width, canvas.height] = [box[2], box[3]];
  canvas.classList.toggle("sharp", box[2] <= 400);
  canvas.getContext("2d").drawImage(hidden, 0, 0);
}

// Order

function option(select, value, text) {
  select.add(new Option(text, value));
}

function fillTools() {
  RUN.metrics.forEach(({ label }, index) => option($("metric"), index, label));
  option($("of"), "", "all methods (range)");
  option($("against"), "", "–");
  methods.forEach(({ name }, index) => {
    option($("of"), index, name);
    option($("against"), index, name);
  });
  option($("side"), "", "as chosen");
  for (const side of [32, 48, 64, 96, 128, 192, 256, 512]) option($("side"), side, `${side} × ${side}`);
  option($("side"), "whole", "whole image");
  for (const slug of RUN.folders.flatMap((folder) => RUN.drawn[folder.slug] ?? [folder.slug])) {
    option($("left"), slug, nameOf(slug));
    option($("right"), slug, nameOf(slug));
  }
  if (!RUN.metrics.length) for (const id of ["metric", "of", "against", "order"]) $(id).parentElement.hidden = true;
}

function nameOrder() {
  const chosen = $("order").value || "first";
  const of = methods[$("of").value], against = methods[$("against").value];
  $("against").disabled = !of;
  let names = ["differ most", "differ least"];
  if (of) names = ["best first", "worst first"];
  if (of && against) names = [`${of.name} is better`, `${against.name} is better`];
  $("order").replaceChildren(new Option(names[0], "first"), new Option(names[1], "last"), new Option("by name", "name"));
  $("order").value = chosen;
}

// What images are sorted by, the greatest first.
function keys() {
  const metric = RUN.metrics[$("metric").value];
  if (!metric || $("order").value === "name") return null;
  const of = $("of").value, against = of && $("against").value;
  const sign = metric.higher ? 1 : -1;
  if (!of) return metric.spread;
  if (!against) return metric.scores[of].map((value) => sign * value);
  return metric.scores[of].map((value, index) => sign * (value - metric.scores[against][index]));
}

function sort() {
  const text = $("filter").value.trim().toLowerCase();
  shown = RUN.ids.filter((id) => id.toLowerCase().includes(text));
  const by = keys();
  if (by) {
    const direction = $("order").value === "last" ? 1 : -1;
    const known = (id) => !Number.isNaN(by[position.get(id)]); // an image without a score comes last
    const compare = (a, b) => direction * (by[position.get(a)] - by[position.get(b)]) || 0;
    shown = [...shown.filter(known).sort(compare), ...shown.filter((id) => !known(id))];
  }
  turn(0);
}

function turn(to) {
  const pages = Math.max(1, Math.ceil(shown.length / RUN.per_page));
  page = Math.min(Math.max(to, 0), pages - 1);
  loading = new Map();
  seen.disconnect();
  const start = page * RUN.per_page, ids = shown.slice(start, start + RUN.per_page);
  $("images").replaceChildren(...ids.map(card));
  const range = ids.length ? `${start + 1}–${start + ids.length} of ${shown.length}` : "no image has that name";
  $("page").textContent = range;
  $("earlier").disabled = page === 0;
  $("later").disabled = page === pages - 1;
}

// One image

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function scoreOf(method, id) {
  const metric = RUN.metrics[$("metric").value];
  const value = metric?.scores[method][position.get(id)];
  if (value === undefined) return null;
  const values = metric.scores.map((scores) => scores[position.get(id)]).filter((other) => !Number.isNaN(other));
  const best = value === (metric.higher ? Math.max : Math.min)(...values);
  const text = Number.isNaN(value) ? "–" : Number.isFinite(value) ? value.toFixed(metric.decimals) : "∞";
  return element("b", { textContent: `${metric.label} ${text}`, className: best ? "best" : "" });
}

const cards = new WeakMap(); // by card: what fills it, once it comes into view
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    cards.get(target)();
  }
}, { rootMargin: "300px" });

function card(id) {
  const rectangle = element("div", { className: "rectangle" });
  const picture = element("img", { alt: `${id}, whole`, loading: "lazy", draggable: false });
  const label = `Window of ${id}: arrow keys move it, plus and minus resize it`;
  const whole = element("div", { className: "whole", tabIndex: 0, role: "application", ariaLabel: label }, picture, rectangle);
  const title = element("span");
  const copy = element("button", { type: "button", textContent: "Copy figure command" });
  const crops = RUN.folders.map(({ slug, name }) => {
    const canvas = element("canvas");
    const method = methods.findIndex((other) => other.slug === slug);
    const button = element("button", { type: "button", className: "crop", ariaLabel: `Compare ${name}, ${id}` }, canvas);
    const caption = element("figcaption", { textContent: name }, ...[method < 0 ? null : scoreOf(method, id)].filter(Boolean));
    button.dataset.slug = slug;
    return { slug, canvas, button, figure: element("figure", {}, button, caption), caption };
  });
  const header = element("header", {}, element("h3", { textContent: id }), title, copy);
  const wholeFigure = element("figure", {}, whole, element("figcaption", { textContent: "whole" }));
  const cells = element("div", { className: "cells" }, wholeFigure, ...crops.map(({ figure }) => figure));
  const made = element("article", { className: "card image" }, header, cells);
  made.dataset.id = id;

  async function fill() {
    try {
      picture.src = RUN.samples[id]?.thumbnail ?? address(hasHr ? HR : LR, id);
      const size = await sizeOf(id);
      const update = async (box) => {
        windows.set(id, box);
        place(rectangle, box, size);
        title.textContent = `${size[0]} × ${size[1]}, window ${box.join(",")}`;
        copy.title = command(id, box);
        await Promise.all(crops.map(({ slug, canvas }) => show(canvas, slug, id, box, size)));
      };
      navigate(whole, size, () => windows.get(id), (box) => update(box).catch(failed));
      for (const { slug, button } of crops) button.addEventListener("click", () => compare(id, slug, size));
      made.resize = (side) => update(resized(windows.get(id), side, size)).catch(failed);
      copy.addEventListener("click", () => copyText(copy, command(id, windows.get(id))));
      wholeFigure.classList.toggle("wide", Math.max(...size) > RUN.whole);
      const start = windows.get(id) ?? firstWindow(id, size);
      await update($("side").value ? resized(start, $("side").value, size) : start);
    } catch (error) {
      failed(error);
    }
  }

  function failed() {
    title.className = "failed";
    title.textContent = `its pictures are not in ${RUN.base}: this page must stay where it was made, beside the run`;
  }

  cards.set(made, fill);
  seen.observe(made);
  return made;
}

function resized([x, y, width, height], side, size) {
  if (side === "whole") return [0, 0, ...size];
  return around(x + width / 2, y + height / 2, Number(side), Number(side), size);
}

function place(rectangle, [x, y, width, height], size) {
  const percent = (value, whole) => `${(100 * value) / whole}%`;
  Object.assign(rectangle.style, {
    left: percent(x, size[0]), top: percent(y, size[1]), width: percent(width, size[0]), height: percent(height, size[1]),
  });
}

// Choosing a window by click, by drag, or by the arrow keys, + and -.
function navigate(whole, size, get, set) {
  let from = null;
  const at = (event) => {
    const box = whole.getBoundingClientRect();
    const inside = (value, length) => Math.min(Math.max(value, 0), 1) * length;
    return [inside((event.clientX - box.left) / box.width, size[0]), inside((event.clientY - box.top) / box.height, size[1])];
  };
  const dragged = (to) => {
    const sides = [Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1])];
    if (Math.min(...sides) < 8) return around(...to, get()[2], get()[3], size);
    return around((to[0] + from[0]) / 2, (to[1] + from[1]) / 2, ...sides, size);
  };
  whole.addEventListener("pointerdown", (event) => {
    whole.setPointerCapture(event.pointerId);
    from = at(event);
  });
  whole.addEventListener("pointermove", (event) => from && set(dragged(at(event))));
  whole.addEventListener("pointerup", (event) => {
    if (from) set(dragged(at(event)));
    from = null;
  });
  whole.addEventListener("keydown", (event) => {
    const [x, y, width, height] = get();
    const step = Math.max(1, Math.round(width / 8));
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const factor = { "+": 0.8, "=": 0.8, "-": 1.25 }[event.key] ?? 1;
    const move = moves[event.key] ?? [0, 0];
    if (factor === 1 && !moves[event.key]) return;
    event.preventDefault();
    set(around(x + width / 2 + move[0], y + height / 2 + move[1], width * factor, height * factor, size));
  });
}

// The command that draws the paper's figure

function quoted(text) {
  return /^[\w./@%+=:-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}

// Where the run lies, seen from this page.
function runFolder() {
  const path = decodeURIComponent(new URL(`${RUN.base}/..`, location.href).pathname);
  return path.replace(/\/$/, "").replace(/^\/(?=[A-Za-z]:)/, "");
}

function command(id, box) {
  return `python benchmark.py figure window ${quoted(runFolder())} --image ${quoted(id)} --window ${box.join(",")} --out figure.pdf`;
}

async function copyText(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    window.prompt("Copy this command:", text);
  }
  setTimeout(() => (button.textContent = before), 1500);
}

// Two methods in one window

let viewed = null; // { id, size }

function compare(id, slug, size) {
  viewed = { id, size };
  $("left").value = slug;
  const other = hasHr && slug !== HR ? HR : methods.find((method) => method.slug !== slug)?.slug ?? LR;
  $("right").value = other;
  $("viewer").showModal();
  render();
}

async function render() {
  const { id, size } = viewed, box = windows.get(id);
  const isDifference = $("mode").value === "difference";
  const [left, right] = $("stage").children;
  await Promise.all([show(left, $("left").value, id, box, size), show(right, $("right").value, id, box, size)]);
  if (isDifference) {
    const context = left.getContext("2d");
    context.globalCompositeOperation = "difference";
    context.drawImage(right, 0, 0);
  }
  const factor = Math.min((0.88 * innerWidth) / box[2], (0.55 * innerHeight) / box[3], 1000 / box[2]);
  const enlarged = factor > 1 ? Math.floor(factor) : factor;
  for (const canvas of [left, right]) canvas.style.width = `${enlarged * box[2]}px`;
  right.hidden = isDifference;
  left.style.filter = isDifference ? `brightness(${$("gain").value})` : "";
  $("stage").classList.toggle("difference", isDifference);
  divide();
  $("slider").hidden = isDifference;
  $("gain-label").hidden = !isDifference;
  const [from, to] = [$("left"), $("right")].map((select) => select.selectedOptions[0].text);
  $("left-name").textContent = isDifference ? `|${from} − ${to}| × ${$("gain").value}` : from;
  $("right-name").textContent = isDifference ? "" : to;
  $("viewed").textContent = id;
  $("command").textContent = command(id, box);
  const index = shown.indexOf(id);
  $("back").disabled = index <= 0;
  $("forth").disabled = index < 0 || index === shown.length - 1;
  await showSamples(viewed, box);
}

async function step(by) {
  const id = shown[shown.indexOf(viewed.id) + by];
  const size = await sizeOf(id);
  if (!windows.has(id)) windows.set(id, firstWindow(id, size));
  viewed = { id, size };
  await render();
}

// The samples of an input, of those of the two methods that have several: a click puts one on the left.
async function showSamples({ id, size }, box) {
  const [left, right] = [$("left").value, $("right").value].map(methodOf);
  const folders = [...new Set([left, right])].flatMap((slug) => RUN.drawn[slug] ?? []);
  const buttons = folders.map((slug) => {
    const text = nameOf(slug);
    const button = element("button", { type: "button", className: "crop", ariaLabel: `Show ${text}` }, element("canvas"));
    button.ariaPressed = slug === $("left").value;
    button.addEventListener("click", () => {
      $("left").value = slug;
      render();
    });
    return element("figure", {}, button, element("figcaption", { textContent: text }));
  });
  $("drawn").replaceChildren(...buttons);
  $("drawn").hidden = !folders.length;
  await Promise.all(folders.map((slug, index) => show(buttons[index].querySelector("canvas"), slug, id, box, size)));
}

function methodOf(slug) {
  return Object.keys(RUN.drawn).find((method) => RUN.drawn[method].includes(slug)) ?? slug;
}

// The name of a folder of pictures: of a method's samples after the first, with their number.
function nameOf(slug) {
  const number = RUN.drawn[methodOf(slug)]?.indexOf(slug) ?? 0;
  const { name } = RUN.folders.find((folder) => folder.slug === methodOf(slug));
  return number > 0 ? `${name}, sample ${number + 1}` : name;
}

// The boundary between the two, where the slider is.
function divide() {
  $("stage").style.setProperty("--split", `${$("slider").value}%`);
  $("stage").children[1].style.clipPath = `inset(0 0 0 ${$("slider").value}%)`;
}

function follow(event) {
  const box = $("stage").getBoundingClientRect();
  $("slider").value = (100 * (event.clientX - box.left)) / box.width;
  divide();
}

fillTools();
nameOrder();
$("tools").addEventListener("submit", (event) => event.preventDefault());
$("filter").addEventListener("input", sort);
for (const id of ["metric", "of", "against", "order"]) {
  $(id).addEventListener("change", () => {
    nameOrder();
    sort();
  });
}
$("side").addEventListener("change", () => {
  if ($("side").value) for (const made of $("images").children) made.resize?.($("side").value);
});
$("earlier").addEventListener("click", () => turn(page - 1));
$("later").addEventListener("click", () => turn(page + 1));
for (const id of ["left", "right", "mode"]) $(id).addEventListener("change", render);
$("gain").addEventListener("input", render);
$("slider").addEventListener("input", divide);
$("stage").addEventListener("pointermove", follow);
$("close").addEventListener("click", () => $("viewer").close());
$("back").addEventListener("click", () => step(-1));
$("forth").addEventListener("click", () => step(1));
$("copy").addEventListener("click", () => copyText($("copy"), $("command").textContent));
sort();
