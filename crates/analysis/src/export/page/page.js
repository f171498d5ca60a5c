// The page: what the hand does, the selected event, the address.

class Page {
  constructor(data) {
    this.data = data;
    this.search = new Search(data);
    this.found = null;
    this.picture = new Picture(element("canvas"), data, {});
    this.dress();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.dress());
    new ResizeObserver(() => this.picture.redraw()).observe(element("stage"));
    this.picture.drawn = () => this.remember();
    this.hands();
    this.keys();
    this.words();
  }

  dress() {
    const css = getComputedStyle(document.documentElement);
    const one = (name) => css.getPropertyValue("--" + name).trim();
    const names = ["ink", "dim", "paper", "panel", "line", "mark", "hot"];
    Object.assign(this.picture.style, Object.fromEntries(names.map((name) => [name, one(name)])));
    this.picture.style.dark = matchMedia("(prefers-color-scheme: dark)").matches;
    this.picture.redraw();
  }

  words() {
    const { data } = this;
    document.title = data.title + " – Gracepoint";
    element("title").textContent = data.title;
    element("search").addEventListener("input", () => {
      clearTimeout(this.soon);
      this.soon = setTimeout(() => this.look(), 150);
    });
    element("search").addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.step(event.shiftKey ? -1 : 1);
      if (event.key === "Escape") {
        event.target.value = "";
        this.look();
        element("canvas").focus();
      }
    });
    element("after").addEventListener("click", () => this.step(1));
    element("before").addEventListener("click", () => this.step(-1));
    element("fit").addEventListener("click", () => this.picture.show(0, data.total));
  }

  status(text) {
    const { data } = this;
    const lost = data.lost ? `; ${plural(data.lost, "event was", "events were")} lost while recording` : "";
    const begin = new Date(Number(BigInt(data.begin_unix_ns) / 1000000n)).toISOString();
    element("status").textContent =
      `${plural(data.spans, "span", "spans")} and ${plural(data.items - data.spans, "event", "events")} on ${plural(data.tracks.length, "track", "tracks")} from ${begin}${lost}. ${text}`;
  }

  hands() {
    const canvas = element("canvas"), { picture } = this;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.shiftKey || event.offsetX < GUTTER) picture.scroll(event.deltaY || event.deltaX);
      else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        const by = event.deltaX * picture.scale;
        picture.show(picture.from + by, picture.to + by);
      } else picture.zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 300))), event.offsetX);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.grab(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointerleave", () => { element("tip").hidden = true; });
    canvas.addEventListener("dblclick", (event) => {
      const hit = picture.hit(event.offsetX, event.offsetY);
      if (hit?.blocks) {
        const [begin, end] = [hit.blocks.begin[hit.i], hit.blocks.end[hit.i]];
        const room = Math.max((end - begin) / 2, 50);
        picture.show(begin - room, end + room);
      }
    });
  }

  grab(event) {
    const { picture } = this;
    element("canvas").setPointerCapture(event.pointerId);
    const { offsetX: x, offsetY: y } = event;
    const what = y < MAP ? "map" : event.shiftKey && x >= GUTTER ? "measure" : "drag";
    this.held = { what, x, y, from: picture.from, to: picture.to, top: picture.top, moved: false };
    picture.measure = what === "measure" ? [picture.ns(x), picture.ns(x)] : null;
    if (what === "map") this.move(event);
    picture.redraw();
  }

  move(event) {
    const { picture, held } = this, { offsetX: x, offsetY: y } = event;
    if (!held) return this.tip(x, y);
    held.moved ||= Math.hypot(x - held.x, y - held.y) > 3;
    if (held.what === "map") {
      const at = ((x - GUTTER) / picture.width) * this.data.total, half = (held.to - held.from) / 2;
      picture.show(at - half, at + half);
    } else if (held.what === "measure") {
      picture.measure[1] = picture.ns(x);
      picture.redraw();
    } else if (held.moved) {
      const by = (held.x - x) * picture.scale;
      picture.show(held.from + by, held.to + by);
      picture.scroll(held.top + held.y - y - picture.top);
    }
    element("tip").hidden = true;
  }

  release(event) {
    const { held } = this;
    this.held = null;
    if (!held || held.moved || held.what !== "drag") return;
    const hit = this.picture.hit(event.offsetX, event.offsetY);
    if (hit && event.offsetX < GUTTER) {
      hit.track.folded = !hit.track.folded;
      this.picture.scroll(0);
    } else if (hit?.blocks) this.choose(hit);
  }

  tip(x, y) {
    const hit = this.picture.hit(x, y), tip = element("tip");
    tip.hidden = !hit?.blocks && !hit?.curve;
    if (tip.hidden) return;
    tip.textContent = hit.curve ? this.spellCurve(hit) : this.spellBlock(hit);
    const { clientWidth, clientHeight } = element("stage");
    tip.style.left = Math.min(x + 14, clientWidth - tip.offsetWidth - 4) + "px";
    tip.style.top = Math.min(y + 14, clientHeight - tip.offsetHeight - 4) + "px";
  }

  spellBlock({ blocks, i }) {
    const name = this.data.kinds[blocks.kind[i]].name;
    const many = blocks.count && blocks.count[i] > 1;
    const length = blocks.end[i] - blocks.begin[i];
    return many
      ? `${plural(blocks.count[i], "event", "events")} in ${duration(length)}, mostly ${name}: zoom in`
      : name + (length > 0 ? `, ${duration(length)}` : "") + (blocks.open.has(i) ? ", no end" : "");
  }

  spellCurve({ track, curve: [low, high] }) {
    const spell = (value) => (track.time ? duration(value) : value.toLocaleString("en"));
    return `${track.name}: ${spell(low)}` + (low < high ? ` to ${spell(high)}` : "");
  }

  keys() {
    document.addEventListener("keydown", (event) => {
      if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
      const { picture } = this, by = (picture.to - picture.from) / 6;
      const middle = GUTTER + picture.width / 2;
      const actions = {
        w: () => picture.zoom(0.7, middle), s: () => picture.zoom(1 / 0.7, middle),
        a: () => picture.show(picture.from - by, picture.to - by),
        d: () => picture.show(picture.from + by, picture.to + by),
        ArrowUp: () => picture.scroll(-3 * ROW), ArrowDown: () => picture.scroll(3 * ROW),
        f: () => picture.show(0, this.data.total), n: () => this.step(event.shiftKey ? -1 : 1),
        Escape: () => this.choose(null), "/": () => element("search").focus(),
      };
      actions.ArrowLeft = actions.a;
      actions.ArrowRight = actions.d;
      const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (action) {
        event.preventDefault();
        action();
      }
    });
  }

  // Shows what a block is: its fields, where it is one event.
  async choose(hit) {
    const { data, picture } = this, panel = element("details");
    picture.measure = null;
    const at = hit && { detail: hit.blocks.detail[hit.i], begin: hit.blocks.begin[hit.i], end: hit.blocks.end[hit.i], ...hit };
    picture.selected = at?.detail >= 0 ? at : null;
    picture.redraw();
    if (!hit) return panel.replaceChildren(tag("p", "Click an event to see its fields."));
    const kind = data.kinds[hit.blocks.kind[hit.i]];
    if (at.detail < 0) {
      const closer = button("Zoom in", () => picture.show(at.begin - 50, at.end + 50));
      const text = `${plural(hit.blocks.count[hit.i], "event", "events")} in ${duration(at.end - at.begin)}, most of it ${kind.name}.`;
      return panel.replaceChildren(tag("h2", "Several events"), tag("p", text), closer);
    }
    const fields = await data.fields(at.detail);
    if (picture.selected !== at) return;
    const rows = [["at", duration(at.begin)], ["track", at.track.name]];
    if (at.end > at.begin) {
      rows.splice(1, 0, ["duration", hit.blocks.open.has(hit.i) ? "no end was recorded" : duration(at.end - at.begin)]);
    }
    const zoom = button("Zoom to it", () => {
      const room = Math.max((at.end - at.begin) / 2, 500);
      picture.show(at.begin - room, at.end + room);
    });
    panel.replaceChildren(
      tag("h2", kind.name), tag("p", kind.docs), table(rows), table(spelled(kind, fields)),
      button("◀ Same before", () => this.same(at, -1)), " ", button("Same after ▶", () => this.same(at, 1)), " ", zoom);
  }

  // The item with these details, as if it had been clicked.
  item(detail) {
    const { row, at, rows } = this.data.places(), place = rows[row[detail]];
    if (!place) return null;
    const blocks = place.row.at(0), i = at[detail];
    return { ...place, blocks, i, begin: blocks.begin[i], end: blocks.end[i] };
  }

  async select(detail) {
    const hit = this.item(detail);
    if (!hit) return;
    this.picture.reveal(hit);
    await this.choose(hit);
  }

  // The next one of its kind on its row.
  same(at, step) {
    const hit = this.item(at.detail);
    for (let i = hit.i + step; i >= 0 && i < hit.blocks.length; i += step) {
      if (hit.blocks.kind[i] === hit.blocks.kind[hit.i]) return this.select(hit.blocks.detail[i]);
    }
  }

  async look() {
    const query = element("search").value, found = element("found");
    await this.whole;
    const match = await this.search.run(query, (part) => {
      found.textContent = `${Math.round(part * 100)} %`;
    });
    if (match === undefined) return;
    this.found = match && { ...match, at: -1 };
    this.picture.match = match;
    found.textContent = match ? plural(match.list.length, "match", "matches") : "";
    this.picture.redraw();
  }

  async step(by) {
    const { found } = this;
    if (!found?.list.length) return;
    const n = found.list.length;
    if (found.at < 0) {
      // The first one in sight, or after it.
      const { begin } = this.data.places();
      const first = found.list.findIndex((detail) => begin[detail] >= this.picture.from);
      found.at = by > 0 ? Math.max(first, 0) : (first + n - 1) % n;
    } else found.at = (found.at + by + n) % n;
    element("found").textContent = `${(found.at + 1).toLocaleString("en")} of ${plural(n, "match", "matches")}`;
    await this.select(found.list[found.at]);
  }

  // The address says what is shown, so that it can be passed on.
  remember() {
    if (!this.ready) return;
    clearTimeout(this.later);
    this.later = setTimeout(() => {
      const { picture, data } = this, parts = new URLSearchParams();
      if (picture.from > 0 || picture.to < data.total) {
        parts.set("from", Math.round(picture.from));
        parts.set("to", Math.round(picture.to));
      }
      if (element("search").value) parts.set("q", element("search").value);
      if (picture.selected) parts.set("at", picture.selected.detail);
      try {
        history.replaceState(null, "", "#" + parts);
      } catch { /* a browser may forbid it for files */ }
    }, 300);
  }

  async recall() {
    const parts = new URLSearchParams(location.hash.slice(1));
    const number = (name) => (parts.has(name) ? Number(parts.get(name)) : NaN);
    if (parts.get("q")) {
      element("search").value = parts.get("q");
      await this.look();
    }
    if (number("at") >= 0 && number("at") < this.data.items) await this.select(number("at"));
    if (number("to") > number("from")) this.picture.show(number("from"), number("to"));
  }
}

function tag(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function button(text, action) {
  const made = tag("button", text);
  made.addEventListener("click", action);
  return made;
}

function table(rows) {
  const made = document.createElement("table");
  for (const [key, value, hint] of rows) {
    const row = made.insertRow();
    const head = tag("th", key);
    if (hint) head.title = hint;
    row.append(head, tag("td", value));
  }
  return made;
}

// Field, value, and as a hint its type and documentation.
function spelled(kind, fields) {
  const types = new Map(kind.fields.map(([name, type, docs]) => [name, { type, docs }]));
  return Object.entries(fields).map(([name, value]) => {
    const { type = "", docs = "" } = types.get(name) ?? {};
    const plain = typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "nothing");
    const text = type.replace("?", "") === "ns" && typeof value === "number" ? duration(value) : plain;
    return [name, text, [type, docs].filter((part) => part).join(": ")];
  });
}

async function main() {
  if (typeof DecompressionStream === "undefined") {
    element("status").textContent = "This browser is too old for the page: it cannot inflate (DecompressionStream).";
    return;
  }
  const [index, first] = await Promise.all([inflateText("index"), inflate("rows-0")]);
  const data = new Data(JSON.parse(index));
  data.parts[0] = first;
  const page = new Page(data);
  page.picture.draw();
  const took = Math.round(performance.now());
  document.documentElement.dataset.firstPictureMs = took;
  page.status("Reading the rest …");
  page.whole = inflate("rows-1").then((rest) => {
    data.parts[1] = rest;
    page.picture.redraw();
  });
  await page.whole;
  await page.recall();
  page.ready = true;
  page.status("");
  element("canvas").focus();
  document.documentElement.dataset.ready = "yes";
}

main().catch((error) => {
  element("status").textContent = "The page is damaged: " + error;
});
