// What book/_static/search.js finds in Sphinx's search, and the weights of book/_ext/search_order.py.

type Places = Record<string, number | number[]>;
declare const Search: { _index: { terms: Places; titleterms: Places } };
declare class Stemmer {
  stemWord(word: string): string;
}
declare const stopwords: string[];
declare const WEIGHTS: Record<string, Record<string, number>>;
