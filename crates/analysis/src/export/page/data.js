// What the page holds: compressed elements, inflated when they are looked at.

const element = (id) => document.getElementById(id);

async function inflate(id) {
  const text = element(id).textContent;
  const raw = Uint8Array.fromBase64
    ? Uint8Array.fromBase64(text)
    : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const inflateText = async (id) => new TextDecoder().decode(await inflate(id));

// Reads numbers of seven bits a byte.
class Bytes {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  next() {
    let n = 0, scale = 1, byte;
    do {
      byte = this.bytes[this.at++];
      n += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return n;
  }
}

// Steps of one level of a curve, in columns: between which values it lies from when to when.
function decodeCurve(bytes, steps, coarse, total) {
  const begin = new Float64Array(steps), end = new Float64Array(steps).fill(total);
  const low = new Float64Array(steps), high = coarse ? new Float64Array(steps) : low;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const from = new Bytes(bytes);
  for (let i = 0, time = 0; i < steps; i++) {
    time += from.next();
    begin[i] = time;
    if (i > 0) end[i - 1] = time;
    for (const values of coarse ? [low, high] : [low]) {
      values[i] = view.getFloat64(from.at, true);
      from.at += 8;
    }
  }
  return { begin, end, low, high, length: steps, coarse };
}

// Blocks of one level of a row, in columns. `detail` is -1 for a block of several items.
function decode(bytes, blocks, coarse, total) {
  const begin = new Float64Array(blocks), end = new Float64Array(blocks);
  const kind = new Uint32Array(blocks), detail = new Int32Array(blocks).fill(-1);
  const count = coarse ? new Uint32Array(blocks) : null;
  const open = new Set();
  const from = new Bytes(bytes);
  let time = 0, last = 0;
  for (let i = 0; i < blocks; i++) {
    time += from.next();
    begin[i] = time;
    const length = from.next();
    if (length === 0) open.add(i);
    end[i] = length === 0 ? total : time + length - 1;
    kind[i] = from.next();
    const n = coarse ? from.next() : 1;
    if (coarse) count[i] = n;
    if (n === 1) {
      const step = from.next();
      last += step % 2 ? -(step + 1) / 2 : step / 2;
      detail[i] = last;
    }
  }
  return { begin, end, kind, detail, count, open, length: blocks, coarse };
}

// One row of a track. Its levels are [width, blocks, part, offset, length], the finest first.
class Row {
  constructor(levels, data, decode) {
    this.decode = decode;
    this.levels = levels;
    this.data = data;
    this.decoded = new Map();
  }

  // The coarsest level whose blocks are not wider than `ns`, of those that are there.
  level(ns) {
    let best = this.levels.length - 1;
    for (let i = this.levels.length - 1; i >= 0; i--) {
      if (!this.data.parts[this.levels[i][2]]) continue;
      best = i;
      if (this.levels[i][0] <= ns) break;
    }
    return this.at(best);
  }

  at(i) {
    let blocks = this.decoded.get(i);
    if (!blocks) {
      const [width, n, part, offset, length] = this.levels[i];
      const bytes = this.data.parts[part].subarray(offset, offset + length);
      blocks = this.decode(bytes, n, width > 0, this.data.total);
      this.decoded.set(i, blocks);
    }
    return blocks;
  }
}

// The first block that ends at or after `ns`. Those of a row do not overlap, but on a last one.
function firstAt(blocks, ns) {
  let low = 0, high = blocks.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (blocks.end[middle] < ns) low = middle + 1;
    else high = middle;
  }
  return low;
}

class Data {
  constructor(index) {
    Object.assign(this, index);
    this.total = index.total_ns;
    this.parts = [null, null];
    this.tracks = index.tracks.map((track, number) => ({
      ...track,
      number,
      folded: false,
      rows: track.rows.map((levels) => new Row(levels, this, track.what === "counter" ? decodeCurve : decode)),
    }));
    this.chunks = new Map();
    this.colors = this.kinds.map((kind) => color(kind.name));
  }

  // Where each item lies: by detail its begin, row and position on it.
  places() {
    if (!this.where) {
      const n = this.items;
      const begin = new Float64Array(n), row = new Int32Array(n).fill(-1), at = new Uint32Array(n);
      const kind = new Uint32Array(n), rows = [];
      for (const track of this.tracks) {
        if (track.what === "counter") continue;
        for (const one of track.rows) {
          const blocks = one.at(0);
          for (let i = 0; i < blocks.length; i++) {
            const detail = blocks.detail[i];
            begin[detail] = blocks.begin[i];
            kind[detail] = blocks.kind[i];
            row[detail] = rows.length;
            at[detail] = i;
          }
          rows.push({ track, row: one });
        }
      }
      this.where = { begin, row, at, kind, rows };
    }
    return this.where;
  }

  // The lines of a chunk of details; the last few are kept.
  async lines(chunk) {
    let text = this.chunks.get(chunk);
    if (text === undefined) {
      text = await inflateText("details-" + chunk);
      this.chunks.set(chunk, text);
      if (this.chunks.size > 8) this.chunks.delete(this.chunks.keys().next().value);
    }
    return text;
  }

  async fields(detail) {
    let low = 0, high = this.details.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.details[middle] <= detail) low = middle;
      else high = middle;
    }
    const line = (await this.lines(low)).split("\n")[detail - this.details[low]];
    // Numbers that a float cannot hold stay as they are spelled.
    return JSON.parse(line, (_, value, context) =>
      typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && context
        ? context.source
        : value);
  }
}

function color(name) {
  let hash = 2166136261;
  for (const c of name) hash = Math.imul(hash ^ c.codePointAt(0), 16777619) >>> 0;
  return [hash % 360, 45 + ((hash >> 9) % 25)];
}

// 1.25 ms
function duration(ns) {
  const units = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]];
  for (const [size, unit] of units) {
    if (Math.abs(ns) >= size) return +(ns / size).toPrecision(5) + " " + unit;
  }
  return Math.round(ns) + " ns";
}

const plural = (n, one, many) => n.toLocaleString("en") + " " + (n === 1 ? one : many);
