document.addEventListener("DOMContentLoaded", () => {
  // The sidebar is part of no landmark as the theme writes it.
  document.querySelector("#pst-primary-sidebar")?.setAttribute("role", "complementary");
  document.querySelector("#pst-primary-sidebar")?.setAttribute("aria-label", "The book");
  // The theme labels its search buttons otherwise than they read; a screen reader should hear what the eye sees. Where
  // nothing is to be read (the header's is an icon, and a phone hides the sidebar's words), the label is all there is.
  /** @type {NodeListOf<HTMLElement>} */
  const found = document.querySelectorAll(".search-button-field, .search-button__button");
  const buttons = [...found];
  const labels = new Map(buttons.map((button) => [button, button.getAttribute("aria-label")]));
  const label = () => {
    for (const [button, text] of labels) {
      if (button.innerText.trim()) button.removeAttribute("aria-label");
      else if (text) button.setAttribute("aria-label", text);
    }
  };
  label();
  window.addEventListener("resize", label);
  // What scrolls, scrolls by keyboard, too; the theme sees to code alone.
  /** @type {NodeListOf<HTMLElement>} */
  const boxes = document.querySelectorAll(".formula, .pst-scrollable-table-container, .bd-article figure");
  const reach = () => boxes.forEach((box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });
  reach();
  window.addEventListener("resize", reach);
  // Paper is white.
  const root = document.documentElement;
  /** @type {string | undefined} */
  let theme;
  window.addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
  });
  window.addEventListener("afterprint", () => {
    root.dataset.theme = theme;
  });
});
