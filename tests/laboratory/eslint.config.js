import js from "@eslint/js";
import globals from "globals";

// What search.js finds in Sphinx's search, and what Sphinx's search finds in it.
const sphinx = { Search: "readonly", Stemmer: "readonly", stopwords: "readonly", WEIGHTS: "readonly" };

export default [
  js.configs.recommended,
  { languageOptions: { globals: globals.browser }, linterOptions: { reportUnusedDisableDirectives: "error" } },
  {
    files: ["**/search.js"],
    languageOptions: { sourceType: "script", globals: sphinx },
    rules: { "no-unused-vars": ["error", { vars: "local" }] },
  },
];
