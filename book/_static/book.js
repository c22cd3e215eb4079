// Marks the lines that `holds` (✓) and `differs` (✗) printed, so that the style can tell them from other output.
document.addEventListener("DOMContentLoaded", () => {
  for (const pre of document.querySelectorAll(".cell_output .output.stream pre, .cell_output .output.text_plain pre")) {
    pre.innerHTML = pre.innerHTML
      .split("\n")
      .map((line) => {
        const kind = line.replace(/<[^>]*>/g, "").startsWith("✓ ")
          ? "book-check"
          : line.replace(/<[^>]*>/g, "").startsWith("✗ ")
            ? "book-break"
            : null;
        return kind ? `<span class="${kind}">${line}</span>` : line;
      })
      .join("\n");
  }
  // The sidebar is part of no landmark as the theme writes it.
  document.querySelector("#pst-primary-sidebar")?.setAttribute("role", "complementary");
  document.querySelector("#pst-primary-sidebar")?.setAttribute("aria-label", "The book");
  // The theme labels its search buttons otherwise than they read; a screen reader should hear what the eye sees. Where
  // nothing is to be read (the header's is an icon, and a phone hides the sidebar's words), the label is all there is.
  const buttons = [...document.querySelectorAll(".search-button-field, .search-button__button")];
  const labels = new Map(buttons.map((button) => [button, button.getAttribute("aria-label")]));
  const label = () => {
    for (const [button, text] of labels) {
      if (button.innerText.trim()) button.removeAttribute("aria-label");
      else if (text) button.setAttribute("aria-label", text);
    }
  };
  label();
  window.addEventListener("resize", label);
});
