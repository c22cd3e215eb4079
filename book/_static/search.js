// How the search takes a query apart and ranks what it finds; Sphinx puts this into its own script.
// A word is looked for in British spelling if the book mostly has it so, and left out if the book has nothing like it.
/** @type {[RegExp, string][]} */
const BRITISH = [[/iz(e|es|ed|er|ers|ing|ation|ations)$/, "is$1"], [/or(s|ing|ed|hood|hoods)?$/, "our$1"], [/er$/, "re"]];
/** @type {string[]} */
let asked = []; // the words of the query, by their stems, and each two in a row

/** @param {string} query */
var splitQuery = (query) => {
  const {terms, titleterms} = Search._index;
  const stemmer = new Stemmer();
  const pages = (/** @type {string} */ word) => {
    const stem = stemmer.stemWord(word.toLowerCase());
    return Math.max(...[terms, titleterms].map((index) => Object.hasOwn(index, stem) ? [index[stem]].flat().length : 0));
  };
  const known = (/** @type {string} */ word) => stopwords.includes(word.toLowerCase()) || pages(word) > 0;
  const like = (/** @type {string} */ word) => Object.keys(terms).some((term) => term.includes(word.toLowerCase()));
  const words = query.replace(/['’]s\b/g, "").split(/[^\p{Letter}\p{Number}_]+/u).filter((word) => word.length > 1)
    .map((word) => {
      const spellings = BRITISH.map(([from, to]) => word.replace(from, to));
      return spellings.reduce((best, spelt) => (pages(spelt) > pages(best) ? spelt : best), word);
    });
  const found = words.filter((word) => known(word) || like(word));
  const stems = found.map((word) => stemmer.stemWord(word.toLowerCase()));
  asked = [...stems, ...stems.slice(1).map((stem, place) => `${stems[place]} ${stem}`)];
  return found.length ? found : words;
};

var Scorer = {
  // What a page says of the words; among results on one page, the section whose title they are comes first.
  /** @param {[string, string, string]} result */
  score: ([page, , anchor]) =>
    asked.reduce((sum, stem) => sum + (WEIGHTS[stem]?.[page] ?? 0), anchor ? 0.05 : 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: {0: 15, 1: 5, 2: -5},
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
