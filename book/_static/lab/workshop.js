// A worker for the jobs, one at a time. Of several that wait under one key, only the newest is done.

import { JOBS } from "./jobs.js";

/** In the worker: do what is asked. */
export function serve() {
  self.onmessage = ({ data: { name, args } }) => self.postMessage(JOBS[name](...args));
}

export class Workshop {
  /** @param {() => string} source the text of the script, of which a worker is made */
  constructor(source) {
    /** @type {Map<string, {name: string, args: any[], then: (result: any) => void}>} */
    this.waiting = new Map();
    /** @type {((result: any) => void) | null} */
    this.busy = null;
    /** @type {Worker | null} */
    this.worker = null;
    try {
      this.worker = new Worker(URL.createObjectURL(new Blob([source()], { type: "text/javascript" })));
      this.worker.onmessage = ({ data }) => this.finish(data);
      this.worker.onerror = (event) => {
        event.preventDefault();
        this.worker = null; // then between two frames, here
        this.finish(null);
      };
    } catch {
      this.worker = null;
    }
  }

  /** @param {string} key @param {string} name of the job @param {any[]} args @param {(result: any) => void} then */
  ask(key, name, args, then) {
    this.waiting.set(key, { name, args, then });
    if (!this.busy) this.next();
  }

  get idle() {
    return !this.busy && !this.waiting.size;
  }

  next() {
    const [first] = this.waiting;
    if (!first) return;
    const [key, { name, args, then }] = first;
    this.waiting.delete(key);
    this.busy = then;
    if (this.worker) this.worker.postMessage({ name, args });
    else setTimeout(() => this.finish(JOBS[name](...args)));
  }

  /** @param {any} result */
  finish(result) {
    const then = this.busy;
    this.busy = null;
    if (result !== null) then?.(result);
    if (!this.busy) this.next();
  }
}
