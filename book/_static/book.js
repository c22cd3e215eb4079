// Marks the lines that `holds` (✓) and `differs` (✗) printed, so that the style can tell them from other output.
document.addEventListener("DOMContentLoaded", () => {
  for (const pre of document.querySelectorAll(".cell_output .output.stream pre")) {
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
  // The theme labels its search buttons otherwise than they read; a screen reader should hear what the eye sees.
  for (const button of document.querySelectorAll(".search-button-field, .search-button__button")) {
    button.removeAttribute("aria-label");
  }
});
