// The stream of figures: opened again by itself when it is cut, paused and resumed at will.

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15000;
const SILENCE_MS = 4000; // after which a stream that seems open is taken for dead

export class Feed {
  constructor(url, heard) {
    this.url = url;
    this.heard = heard;
    this.source = null;
    this.wait = FIRST_WAIT_MS;
    this.timer = 0;
    this.isPaused = false;
    this.heardAt = 0;
    setInterval(() => this.#watch(), 1000);
    addEventListener("online", () => { if (!this.isPaused) this.open(); });
  }

  open() {
    this.#shut();
    this.isPaused = false;
    this.openedAt = Date.now();
    const source = new EventSource(this.url);
    this.source = source;
    source.addEventListener("analytics", (event) => {
      this.wait = FIRST_WAIT_MS;
      this.heardAt = Date.now();
      this.heard.figures(JSON.parse(event.data));
    });
    source.addEventListener("history", (event) => this.heard.points(JSON.parse(event.data), true));
    source.addEventListener("points", (event) => this.heard.points(JSON.parse(event.data), false));
    source.addEventListener("error", () => {
      if (source !== this.source || source.readyState !== EventSource.CLOSED) return; // the browser comes back by itself
      this.heard.lost(); // it was refused, and the browser does not try again
      this.#later();
    });
  }

  pause() {
    this.isPaused = true;
    this.#shut();
  }

  #later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), this.wait);
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT_MS);
  }

  #watch() {
    if (this.isPaused || this.source === null) return;
    if (Date.now() - Math.max(this.heardAt, this.openedAt) < SILENCE_MS) return;
    this.heard.lost();
    if (this.source.readyState !== EventSource.CLOSED) this.open();
  }

  #shut() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }
}
