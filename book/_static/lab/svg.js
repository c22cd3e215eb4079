// Drawing: elements, axes, and numbers as people read them.

/**
 * An element of the page, or of a drawing (`svg:` before its name).
 * @param {string} name @param {Record<string, string | number>} [attributes] @param {(Node | string)[]} children
 * @returns {any}
 */
export function element(name, attributes = {}, ...children) {
  const made = name.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.append(...children);
  return made;
}

/** Set those attributes that are not so already: nothing is laid out anew for the others. @param {Element} node @param {Record<string, string | number>} attributes */
export function set(node, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (node.getAttribute(key) !== String(value)) node.setAttribute(key, String(value));
  }
}

/** What was drawn last in each node. @type {WeakMap<Element, string>} */
const drawn = new WeakMap();

/** Draw, unless the same is there already. @param {Element} node @param {string} html */
export function fill(node, html) {
  if (drawn.get(node) === html) return;
  drawn.set(node, html);
  node.innerHTML = html;
}

/** Where there is no minimum, a view of it is empty, and says why. @param {Element} drawing @param {Element} words */
export function clear(drawing, words) {
  const why = "Nothing to draw: there is no minimum.";
  fill(drawing, `<text class="tick" x="50%" y="50%" text-anchor="middle">${why}</text>`);
  drawing.setAttribute("aria-label", why);
  words.textContent = "";
}

/** A number in few digits, with a true minus. @param {number} x @param {number} [digits] */
export function said(x, digits = 3) {
  if (!Number.isFinite(x)) return "–";
  const size = Math.abs(x);
  const text =
    size !== 0 && (size < 1e-4 || size >= 1e5)
      ? x.toExponential(Math.max(0, digits - 2))
      : String(+x.toFixed(Math.max(0, Math.min(6, digits - 1 - Math.floor(Math.log10(size || 1))))));
  return text.replaceAll("-", "−");
}

/** With its sign, and always so many places. @param {number} x @param {number} [places] */
export function signed(x, places = 4) {
  if (!Number.isFinite(x)) return "–";
  const text = Math.abs(x).toFixed(places);
  return (Number(text) === 0 ? "" : x < 0 ? "−" : "+") + text;
}

/** Round numbers that divide an interval into few parts. @param {number} low @param {number} high @param {number} [parts] */
export function ticks(low, high, parts = 5) {
  const raw = (high - low) / parts;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * ([1, 2, 5, 10].find((k) => k * unit >= raw) ?? 10);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found;
}

/** The next round number above, so that axes stand still while values move. @param {number} x */
export function roundUp(x) {
  if (!(x > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(x));
  return unit * ([1, 1.5, 2, 3, 5, 7, 10].find((k) => k * unit >= x * 1.02) ?? 10);
}

/**
 * A frame with two axes, and the functions that place numbers in it.
 * @param {{x: [number, number], y: [number, number], xLabel: string, yLabel: string, width?: number, height?: number,
 *   xTicks?: number[], yTicks?: number[], xText?: (x: number) => string, yText?: (y: number) => string}} axes
 */
export function frame({ x, y, xLabel, yLabel, width = 400, height = 320, ...rest }) {
  const { xTicks = ticks(...x), yTicks = ticks(...y), xText = said, yText = said } = rest;
  // Room for the longest number; a tag in it, as round an exponent, is not seen.
  const longest = Math.max(...yTicks.map((v) => yText(v).replace(/<[^>]*>/g, "").length));
  const [left, right, top, bottom] = [Math.max(58, 24 + 6.5 * longest), 10, 10, 42];
  const px = (/** @type {number} */ v) => left + ((v - x[0]) / (x[1] - x[0])) * (width - left - right);
  const py = (/** @type {number} */ v) =>
    height - bottom - ((v - y[0]) / (y[1] - y[0])) * (height - top - bottom);
  const below = height - bottom;
  const parts = [`<path class="axis" d="M${left} ${top}V${below}H${width - right}"/>`];
  for (const v of xTicks) {
    parts.push(`<path class="axis" d="M${r(px(v))} ${below}v4"/>`);
    parts.push(
      `<text class="tick" x="${r(px(v))}" y="${below + 17}" text-anchor="middle">${xText(v)}</text>`,
    );
  }
  for (const v of yTicks) {
    parts.push(`<path class="axis" d="M${left} ${r(py(v))}h-4"/>`);
    parts.push(`<text class="tick" x="${left - 7}" y="${r(py(v) + 4)}" text-anchor="end">${yText(v)}</text>`);
  }
  const middle = top + (below - top) / 2;
  parts.push(
    `<text class="label" x="${left + (width - left - right) / 2}" y="${height - 5}" text-anchor="middle">${xLabel}</text>`,
  );
  parts.push(
    `<text class="label" transform="translate(13 ${middle}) rotate(-90)" text-anchor="middle">${yLabel}</text>`,
  );
  return { px, py, left, right: width - right, top, bottom: below, parts, width, height };
}

/** A coordinate, to a tenth of a pixel. @param {number} v */
export const r = (v) => Math.round(v * 10) / 10;

/** A line through these points; it breaks where one is not finite. @param {[number, number][]} points */
export function line(points) {
  let pen = "M";
  return points
    .map(([x, y]) => {
      if (!Number.isFinite(x + y)) {
        pen = "M";
        return "";
      }
      const piece = `${pen}${r(x)} ${r(y)}`;
      pen = "L";
      return piece;
    })
    .join("");
}

/**
 * A mark: circles stand for label 0, triangles for label 1.
 * @param {number} x @param {number} y @param {number} size the radius @param {number} label
 */
export function mark(x, y, size, label) {
  const s = r(size * 1.25);
  return label
    ? `M${r(x)} ${r(y - s)}L${r(x + 0.9 * s)} ${r(y + 0.65 * s)}H${r(x - 0.9 * s)}Z`
    : `M${r(x - size)} ${r(y)}a${r(size)} ${r(size)} 0 1 0 ${r(2 * size)} 0a${r(size)} ${r(size)} 0 1 0 ${r(-2 * size)} 0Z`;
}

/** A star for a test point. @param {number} x @param {number} y @param {number} size */
export function star(x, y, size) {
  const tips = Array.from({ length: 10 }, (_, k) => {
    const [angle, reach] = [(k * Math.PI) / 5, k % 2 ? 0.45 * size : size];
    return `${r(x + reach * Math.sin(angle))} ${r(y - reach * Math.cos(angle))}`;
  });
  return `M${tips.join("L")}Z`;
}
