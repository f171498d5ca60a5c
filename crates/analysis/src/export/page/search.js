// Search: each word must be in the event's name or in what its fields hold.

class Search {
  constructor(data) {
    this.data = data;
    this.number = 0;
  }

  // Finds what matches `query`; `told` hears how far it is. Nothing, when another search has begun.
  async run(query, told) {
    const number = ++this.number;
    const words = query.toLowerCase().split(/\s+/).filter((word) => word);
    if (!words.length) return null;
    const { data } = this, { kinds } = data;
    // By word, the kinds that have it in their name.
    const named = words.map((word) => kinds.map((kind) => kind.name.toLowerCase().includes(word)));
    const sure = kinds.map((_, kind) => named.every((has) => has[kind]));
    const { kind, begin } = data.places();
    const found = new Uint8Array(data.items);
    for (let i = 0; i < data.items; i++) found[i] = sure[kind[i]] ? 1 : 0;
    for (let chunk = 0; chunk < data.details.length; chunk++) {
      const text = (await data.lines(chunk)).toLowerCase();
      if (number !== this.number) return undefined;
      told?.(chunk / data.details.length);
      if (!words.some((word) => text.includes(word))) continue;
      const lines = text.split("\n"), first = data.details[chunk];
      for (let i = 0; i < lines.length - 1; i++) {
        const of = kind[first + i];
        if (words.every((word, w) => named[w][of] || lines[i].includes(word))) found[first + i] = 1;
      }
    }
    const list = [];
    found.forEach((is, detail) => is && list.push(detail));
    list.sort((a, b) => begin[a] - begin[b] || a - b);
    const some = new Set(list.map((detail) => kind[detail]));
    return {
      list,
      // A block of several is shown when its kind may match.
      shows: (of, detail) => (detail < 0 ? some.has(of) : found[detail] === 1),
    };
  }
}
