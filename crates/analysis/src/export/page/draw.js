// The picture: tracks and their rows on a canvas, the axis above them, and all of it in small on top.

const GUTTER = 190, CURVE = 3, MAP = 44, AXIS = 22, ROW = 18, GAP = 6, HEAD = MAP + AXIS;

class Picture {
  constructor(canvas, data, style) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.data = data;
    this.style = style;
    this.from = 0;
    this.to = data.total;
    this.top = 0;
    this.selected = null;
    this.match = null;
    this.measure = null;
    this.waiting = false;
  }

  get width() { return Math.max(1, this.canvas.clientWidth - GUTTER); }
  get height() { return this.canvas.clientHeight; }
  // Nanoseconds of a pixel.
  get scale() { return (this.to - this.from) / this.width; }

  x(ns) { return GUTTER + (ns - this.from) / this.scale; }
  ns(x) { return this.from + (x - GUTTER) * this.scale; }

  // Shows from here to there, not closer than 20 ns and not farther than all.
  show(from, to) {
    const { total } = this.data;
    const length = Math.min(Math.max(to - from, 20), total);
    this.from = Math.min(Math.max(from, 0), total - length);
    this.to = this.from + length;
    this.redraw();
  }

  zoom(factor, x) {
    const at = this.ns(Math.max(x, GUTTER));
    this.show(at - (at - this.from) * factor, at + (this.to - at) * factor);
  }

  scroll(by) {
    const most = Math.max(0, this.bottom() - (this.height - HEAD));
    this.top = Math.min(Math.max(this.top + by, 0), most);
    this.redraw();
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  // Tracks with where they begin, in pixels below the axis, not scrolled.
  *places() {
    let y = GAP;
    for (const track of this.data.tracks) {
      const open = track.what === "counter" ? CURVE : track.rows.length;
      const rows = track.folded ? 1 : open;
      yield { track, y, rows };
      y += rows * ROW + GAP;
    }
  }

  bottom() {
    let bottom = 0;
    for (const { y, rows } of this.places()) bottom = y + rows * ROW + GAP;
    return bottom;
  }

  fill(kind, dim) {
    const [hue, saturation] = this.data.colors[kind];
    if (dim) return `hsl(${hue} 8% ${this.style.dark ? 26 : 88}%)`;
    return `hsl(${hue} ${saturation}% ${this.style.dark ? 42 : 68}%)`;
  }

  draw() {
    const ratio = devicePixelRatio || 1;
    const { canvas, context } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = this.style.paper;
    context.fillRect(0, 0, width, height);
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    this.drawTracks(width, height);
    this.drawAxis(width, height);
    this.drawMap(width);
    this.drawMeasure(height);
    this.drawn?.();
  }

  drawTracks(width, height) {
    const { context } = this;
    for (const { track, y, rows } of this.places()) {
      const top = HEAD + y - this.top;
      if (top + rows * ROW < HEAD || top > height) continue;
      context.save();
      context.beginPath();
      context.rect(GUTTER, HEAD, width - GUTTER, height - HEAD);
      context.clip();
      if (track.what === "counter") this.drawCurve(track, top, rows * ROW, width);
      else for (let i = 0; i < rows; i++) {
        const rowTop = top + i * ROW;
        if (rowTop + ROW >= HEAD && rowTop <= height) this.drawRow(track.rows[i], rowTop, width);
      }
      context.restore();
      context.save();
      context.beginPath();
      context.rect(0, HEAD, GUTTER - 4, height - HEAD);
      context.clip();
      context.fillStyle = track.what === "notes" ? this.style.hot : this.style.ink;
      const sign = track.rows.length > 1 || track.what === "counter" ? (track.folded ? "▸ " : "▾ ") : "   ";
      context.fillText(sign + track.name, 8, top + ROW / 2);
      context.restore();
      context.fillStyle = this.style.line;
      if (top + rows * ROW + GAP / 2 > HEAD) context.fillRect(0, top + rows * ROW + GAP / 2, width, 1);
    }
  }

  drawRow(row, top, width) {
    const { context, match } = this;
    const blocks = row.level(this.scale);
    let covered = -1, last = "";
    for (let i = Math.max(0, firstAt(blocks, this.from) - 1); i < blocks.length; i++) {
      const left = this.x(blocks.begin[i]);
      if (left > width) break;
      const right = this.x(blocks.end[i]);
      if (right < GUTTER) continue;
      const kind = blocks.kind[i], detail = blocks.detail[i];
      const dim = match && !match.shows(kind, detail);
      const fill = this.fill(kind, dim);
      const from = Math.max(left, GUTTER - 2), wide = Math.max(Math.min(right, width) - from, 1.5);
      // What is not seen beside what was drawn is not drawn.
      if (from + wide <= covered && fill === last) continue;
      context.fillStyle = fill;
      context.fillRect(from, top + 1, wide, ROW - 2);
      if (detail >= 0 && detail === this.selected?.detail) {
        context.strokeStyle = this.style.ink;
        context.lineWidth = 2;
        context.strokeRect(from, top + 1, wide, ROW - 2);
      }
      covered = from + wide;
      last = fill;
      if (wide > 34) this.label(blocks, i, from, wide, top, dim);
    }
  }

  // From 0 to its greatest value, or from its least one; where a step stands for several, what lies between those
  // is pale.
  drawCurve(track, top, tall, width) {
    const { context } = this, steps = track.rows[0].level(this.scale);
    const least = Math.min(track.low, 0), most = Math.max(track.high, 0);
    const y = (value) => top + tall - 1 - ((value - least) / (most - least || 1)) * (tall - 2);
    const bar = (left, wide, from, to) => context.fillRect(left, Math.min(y(from), y(to)), wide, Math.max(Math.abs(y(from) - y(to)), 1));
    context.fillStyle = this.fill(track.event, false);
    for (let i = firstAt(steps, this.from); i < steps.length; i++) {
      const left = Math.max(this.x(steps.begin[i]), GUTTER - 2);
      if (left > width) break;
      const wide = Math.max(Math.min(this.x(steps.end[i]), width) - left, 1);
      const near = steps.low[i] > 0 ? steps.low[i] : Math.min(steps.high[i], 0);
      bar(left, wide, 0, near);
      if (steps.low[i] < steps.high[i]) {
        context.globalAlpha = 0.5;
        bar(left, wide, steps.low[i], steps.high[i]);
        context.globalAlpha = 1;
      }
    }
  }

  label(blocks, i, from, wide, top, dim) {
    const { context } = this;
    const many = blocks.count && blocks.count[i] > 1;
    const text = many ? "×" + blocks.count[i] : this.data.kinds[blocks.kind[i]].name;
    const fits = Math.floor((wide - 8) / 6.5);
    const shown = text.length <= fits ? text : text.slice(0, Math.max(fits - 1, 1)) + "…";
    context.fillStyle = dim ? this.style.dim : this.style.ink;
    context.fillText(shown, from + 4, top + ROW / 2);
  }

  drawAxis(width, height) {
    const { context, style } = this;
    context.fillStyle = style.panel;
    context.fillRect(0, MAP, width, AXIS);
    const step = nice(this.scale * 110);
    context.fillStyle = style.dim;
    context.fillText(duration(this.to - this.from) + " shown", 8, MAP + AXIS / 2);
    for (let at = Math.ceil(this.from / step) * step; at <= this.to; at += step) {
      const x = this.x(at);
      context.fillStyle = style.dim;
      context.fillText(duration(at), x + 4, MAP + AXIS / 2);
      context.fillStyle = style.line;
      context.globalAlpha = 0.6;
      context.fillRect(x, MAP, 1, height - MAP);
      context.globalAlpha = 1;
    }
  }

  // All of the trace, each track a line or less.
  drawMap(width) {
    const { context, data, style } = this;
    context.fillStyle = style.panel;
    context.fillRect(0, 0, width, MAP);
    const drawn = data.tracks.filter((track) => track.what !== "counter");
    const rows = drawn.map((track) => track.rows[0]).slice(0, 400);
    const high = Math.max((MAP - 6) / rows.length, 0.5), scale = data.total / this.width;
    rows.forEach((row, n) => {
      const blocks = row.level(scale);
      for (let i = 0; i < blocks.length; i++) {
        context.fillStyle = this.fill(blocks.kind[i], false);
        const wide = Math.max((blocks.end[i] - blocks.begin[i]) / scale, 1);
        context.fillRect(GUTTER + blocks.begin[i] / scale, 3 + n * high, wide, Math.max(high - 0.5, 0.5));
      }
    });
    context.strokeStyle = style.mark;
    context.lineWidth = 2;
    context.strokeRect(GUTTER + this.from / scale, 1, Math.max((this.to - this.from) / scale, 2), MAP - 2);
    context.fillStyle = style.dim;
    context.fillText(duration(data.total) + " in all", 8, MAP / 2);
  }

  drawMeasure(height) {
    if (!this.measure) return;
    const { context, style } = this;
    const [from, to] = this.measure.map((ns) => this.x(ns));
    context.globalAlpha = 0.2;
    context.fillStyle = style.mark;
    context.fillRect(Math.min(from, to), HEAD, Math.abs(to - from), height - HEAD);
    context.globalAlpha = 1;
    context.fillStyle = style.ink;
    context.fillText(duration(Math.abs(this.measure[1] - this.measure[0])), Math.min(from, to) + 4, HEAD + 12);
  }

  // The track at a height, and the block there.
  hit(x, y) {
    const below = y - HEAD + this.top;
    if (y < HEAD) return null;
    for (const { track, y: top, rows } of this.places()) {
      if (below < top || below >= top + rows * ROW) continue;
      const found = { track };
      if (x < GUTTER) return found;
      if (track.what === "counter") {
        const steps = track.rows[0].level(this.scale), i = firstAt(steps, this.ns(x));
        if (i < steps.length && steps.begin[i] <= this.ns(x)) found.curve = [steps.low[i], steps.high[i]];
        return found;
      }
      const row = track.rows[Math.floor((below - top) / ROW)];
      const blocks = row.level(this.scale), reach = 3 * this.scale, ns = this.ns(x);
      for (let i = firstAt(blocks, ns - reach); i < blocks.length; i++) {
        if (blocks.begin[i] > ns + reach) break;
        const far = Math.max(blocks.begin[i] - ns, ns - blocks.end[i], 0);
        if (!found.blocks || far < found.far) Object.assign(found, { row, blocks, i, far });
      }
      return found;
    }
    return null;
  }

  // Brings an item into the middle, and far enough apart to be seen.
  reveal(item) {
    const length = Math.max((item.end - item.begin) * 3, this.to - this.from > 2e9 ? 1e6 : 0);
    const span = item.end > item.begin ? Math.min(Math.max(length, 100), this.to - this.from) : this.to - this.from;
    const middle = (item.begin + item.end) / 2;
    for (const { track, y } of this.places()) {
      if (track === item.track) {
        const place = y + (track.folded ? 0 : track.rows.indexOf(item.row)) * ROW;
        const room = this.height - HEAD;
        if (place < this.top || place + ROW > this.top + room) this.top = Math.max(0, place - room / 2);
      }
    }
    this.show(middle - span / 2, middle + span / 2);
  }
}

// 1, 2 or 5 and zeroes, not below `ns`.
function nice(ns) {
  const ten = 10 ** Math.floor(Math.log10(Math.max(ns, 1)));
  return [1, 2, 5, 10].map((n) => n * ten).find((n) => n >= ns) ?? 10 * ten;
}
