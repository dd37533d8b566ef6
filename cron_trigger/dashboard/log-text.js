/*
 * A line of a log as text and colours: escapes become classes or nothing (ECMA-48).  No DOM here.
 */

/** @typedef {[from: number, to: number, classes: string]} Span */
/** @typedef {string | {text: string, spans: Span[]}} Line plain where there is no colour */

// CSI (with SGR's numbers caught), OSC, DCS/SOS/PM/APC, and the two-character escapes
const ESCAPE =
  /\x1b(?:\[([\d;:]*)m|\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~]?)/g;
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;
const COLOURS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
/** @type {Record<number, string>} */
const STYLES_ON = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "reverse", 9: "strike"};
/** @type {Record<number, string[]>} */
const STYLES_OFF = {
  22: ["bold", "dim"],
  23: ["italic"],
  24: ["underline"],
  27: ["reverse"],
  29: ["strike"],
};

/** @param {Line} line */
export function textOf(line) {
  return typeof line === "string" ? line : line.text;
}

/** Reads lines one after the other, since a colour may go on over several. */
export class AnsiReader {
  constructor() {
    /** @type {Set<string>} */
    this.styles = new Set();
    this.colour = "";
    this.ground = "";
  }

  /**
   * @param {string} line without its line feed
   * @returns {Line}
   */
  read(line) {
    const seen = lastState(line);
    if (!seen.includes("\x1b") && !this.isStyled()) return seen.replace(CONTROL, "");
    return this.readStyled(seen);
  }

  /**
   * A line that is not whole yet: what follows it is read as if this had not been.
   * @param {string} line
   * @returns {Line}
   */
  peek(line) {
    const copy = new AnsiReader();
    copy.styles = new Set(this.styles);
    copy.colour = this.colour;
    copy.ground = this.ground;
    return copy.read(line);
  }

  /**
   * @param {string} line
   * @returns {Line}
   */
  readStyled(line) {
    let text = "";
    let at = 0;
    /** @type {Span[]} */
    const spans = [];
    const take = (/** @type {string} */ piece) => {
      const clean = piece.replace(CONTROL, "");
      const classes = clean && this.classes();
      if (classes) spans.push([text.length, text.length + clean.length, classes]);
      text += clean;
    };
    for (const escape of line.matchAll(ESCAPE)) {
      take(line.slice(at, escape.index));
      at = escape.index + escape[0].length;
      if (escape[1] !== undefined) this.select(escape[1]);
    }
    take(line.slice(at));
    return spans.length ? {text, spans} : text;
  }

  isStyled() {
    return this.styles.size > 0 || this.colour !== "" || this.ground !== "";
  }

  /** Reverse video changes the places of the two colours. */
  classes() {
    const reverse = this.styles.has("reverse");
    const front = reverse ? this.ground || "ground" : this.colour;
    const back = reverse ? this.colour || "text" : this.ground;
    const styles = [...this.styles].filter((style) => style !== "reverse");
    const names = [...styles, front, back && `on-${back}`];
    return names.flatMap((name) => (name ? [`ansi-${name}`] : [])).join(" ");
  }

  /**
   * SGR: ECMA-48 8.3.117, with the bright colours and the 256 and 24-bit ones, which become the
   * nearest of the eight: those can be read in light and dark.
   * @param {string} numbers
   */
  select(numbers) {
    const codes = numbers.split(/[;:]/).map(Number);
    for (let i = 0; i < codes.length; i += 1) {
      const code = codes[i];
      if (code === 38 || code === 48) {
        const [colour, used] = extended(codes.slice(i + 1));
        if (code === 38) this.colour = colour;
        else this.ground = colour;
        i += used;
      } else this.selectOne(code);
    }
  }

  /** @param {number} code */
  selectOne(code) {
    if (code === 0) {
      this.styles.clear();
      this.colour = this.ground = "";
    }
    if (code in STYLES_ON) this.styles.add(STYLES_ON[code]);
    for (const style of STYLES_OFF[code] ?? []) this.styles.delete(style);
    if (code === 39) this.colour = "";
    if (code === 49) this.ground = "";
    const [tens, ones] = [Math.floor(code / 10), code % 10];
    if (ones < 8 && (tens === 3 || tens === 9)) this.colour = COLOURS[ones];
    if (ones < 8 && (tens === 4 || tens === 10)) this.ground = COLOURS[ones];
  }
}

/**
 * A progress line: what its last carriage return left.
 * @param {string} line
 */
function lastState(line) {
  const whole = line.endsWith("\r") ? line.slice(0, -1) : line;
  return whole.slice(whole.lastIndexOf("\r") + 1);
}

/**
 * What follows 38 or 48: `5;n` or `2;r;g;b`.
 * @param {number[]} codes
 * @returns {[colour: string, used: number]}
 */
function extended([kind, ...values]) {
  if (kind === 5) return [indexed(values[0]), 2];
  if (kind === 2) return [nearest(values.slice(0, 3), 128), 4];
  return ["", 1];
}

/** @param {number} n */
function indexed(n) {
  if (!(n >= 0 && n < 256)) return "";
  if (n < 16) return COLOURS[n % 8];
  if (n >= 232) return n < 244 ? "black" : "white";
  const cube = n - 16;
  return nearest([Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6], 3);
}

/**
 * @param {number[]} rgb
 * @param {number} bright from here on a part counts as lit
 */
function nearest(rgb, bright) {
  return COLOURS[rgb.reduce((sum, part, bit) => sum + (part >= bright ? 1 << bit : 0), 0)];
}
