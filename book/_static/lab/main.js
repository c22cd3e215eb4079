// Where the laboratory begins: in the page, each form of it is set up when it is seen; in the worker, jobs are done.

import { App } from "./app.js";
import { cloud } from "./cloud.js";
import { CONTROLS } from "./controls.js";
import { lift } from "./lift.js";
import { local } from "./local.js";
import { plane } from "./plane.js";
import { decode } from "./scene.js";
import { spectrum } from "./spectrum.js";
import { springs } from "./springs.js";
import { element } from "./svg.js";
import { weight } from "./weight.js";
import { certificate } from "./words.js";
import { Workshop, serve } from "./workshop.js";

/** @type {Record<string, [string, (app: App) => {element: any, draw: (state: any) => void}]>} */
const VIEWS = {
  plane: ["The plane", plane],
  cloud: ["Predicted against actual", cloud],
  weight: ["The loss against one weight", weight],
  lift: ["The slope of the risk", lift],
  springs: ["Springs", springs],
  spectrum: ["The spectrum of H", spectrum],
  local: ["How local?", local],
};
const KEYS =
  "Tab to a point; arrows move it (Shift: further), Page Up and Page Down choose another, F flips its label, + and − " +
  "change its weight, Delete removes it.";

/** The scene in the address, if what stands there is one and not a place on the page. */
const sent = () => (location.hash.includes("=") ? location.hash.slice(1) : "");

/** @param {HTMLElement} place @param {Workshop} workshop */
function mount(place, workshop) {
  const { views = "", controls = "", more = "", state = "", goal = "", whole } = place.dataset;
  const { scene, understood } = decode((whole !== undefined && sent()) || state);
  const names = views.split(" ").filter(Boolean);

  const line = element("p", { class: "report", "aria-hidden": "true" }); // for the eye, at once
  const spoken = element("p", { class: "spoken", role: "status", "aria-live": "polite" }); // when all is there
  const proof = element("p", { class: "proof" });
  const link = element(
    "a",
    { class: "share" },
    whole === undefined ? "Open in the laboratory" : "Link to this scene",
  );
  /** @type {string | undefined} */
  let opened;
  const app = new App(scene, workshop, {
    views: names,
    goal,
    rest(app) {
      // Nothing is said of a page that has only been opened, however often it comes to rest.
      opened ??= app.address;
      if (spoken.textContent || app.address !== opened) spoken.textContent = app.words;
      link.href = whole === undefined ? `${place.dataset.home}#${app.address}` : `#${app.address}`;
      if (whole !== undefined && sent() !== app.address) history.replaceState(null, "", `#${app.address}`);
    },
  });

  const panels = names.map((name) => {
    const [title, make] = VIEWS[name];
    const view = make(app);
    app.views.push(view);
    return element(
      "section",
      { class: `view ${name}`, "aria-label": title },
      element("p", { class: "title" }, title),
      view.element,
    );
  });
  const groups = (/** @type {string} */ names) =>
    names
      .split(" ")
      .filter(Boolean)
      .map((name) => {
        const made = CONTROLS[name](app);
        app.views.push(...made);
        return element("div", { class: "group" }, ...made.map((control) => control.element));
      });
  const row = (/** @type {string} */ names) =>
    element("div", { class: "line-of-controls" }, ...groups(names));
  app.views.push({
    draw(state) {
      // While something is dragged, no text becomes shorter: what lies below would move.
      for (const text of body.querySelectorAll(".report, .words, .proof")) {
        if (!state.busy) text.style.minHeight = "";
        else text.style.minHeight ||= `${text.offsetHeight}px`;
      }
      line.textContent = app.words;
      proof.textContent = certificate(state);
    },
  });

  const body = element(
    "div",
    { class: "body" },
    element(
      "div",
      { class: "controls", role: "group", "aria-label": "Controls of the laboratory" },
      row(controls),
      more ? element("details", {}, element("summary", {}, "More controls"), row(more)) : "",
    ),
    line,
    spoken,
    element("div", { class: "views" }, ...panels),
    proof,
    element("p", { class: "keys" }, names.includes("plane") ? `${KEYS} ` : "", link),
  );
  body.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const typing = event.target instanceof HTMLInputElement && event.target.type === "number";
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !typing) {
      event.preventDefault();
      app.undo();
    }
  });
  if (whole !== undefined) {
    addEventListener("hashchange", () => {
      const text = sent();
      if (text && text !== app.address) app.reset(decode(text).scene);
    });
  }
  if (!understood) app.praise = "Part of this address was not understood; the rest is shown.";
  /** @type {HTMLElement | null} */ (place.querySelector(".still"))?.setAttribute("hidden", "");
  place.append(body);
  place.style.minHeight = "";
  Object.assign(place, { app });
  app.ask();
  app.draw();
  app.settle();
}

/** @param {{source: () => string, css: string, modules: object}} script */
export function start({ source, css, modules }) {
  if (typeof document === "undefined") {
    serve();
    return;
  }
  document.head.append(element("style", {}, css));
  const workshop = new Workshop(source);
  const eye = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        eye.unobserve(target);
        try {
          mount(/** @type {HTMLElement} */ (target), workshop);
        } catch (error) {
          target.append(
            element(
              "p",
              { class: "report" },
              "The laboratory does not work in this browser; this is a picture of it.",
            ),
          );
          throw error;
        }
      }
    },
    { rootMargin: "200px" },
  );
  const observe = () => document.querySelectorAll(".laboratory").forEach((place) => eye.observe(place));
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", observe);
  else observe();
  Object.assign(globalThis, { laboratory: { modules, workshop } });
}
