//! The page of a trace, taken apart as a browser does: elements, inflated; rows and their levels, decoded.

use crate::exporting::{options, tangled, try_export};
use crate::recording::{Dir, busy, every_type};
use base64::Engine;
use gracepoint_analysis::export::Format;
use serde_json::Value;
use std::io::Read;

/// One block of a level: begin, end (none: it has none), kind, how many, which details.
type Block = (u64, Option<u64>, usize, u64, Option<usize>);

struct Page {
    text: String,
    index: Value,
    parts: [Vec<u8>; 2],
    /// The details of each item.
    details: Vec<Value>,
}

impl Page {
    fn of(dir: &Dir) -> Page {
        let (bytes, _) = try_export(dir, &options(Format::Page)).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let index: Value = serde_json::from_slice(&inflate(&text, "index")).unwrap();
        let parts = ["rows-0", "rows-1"].map(|id| inflate(&text, id));
        let firsts = index["details"].as_array().unwrap();
        let mut details = Vec::new();
        for (chunk, first) in firsts.iter().enumerate() {
            assert_eq!(details.len() as u64, *first);
            let lines = inflate(&text, &format!("details-{chunk}"));
            let lines = String::from_utf8(lines).unwrap();
            details.extend(lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
        assert_eq!(index["items"], details.len());
        Page { text, index, parts, details }
    }

    /// Tracks by name, with the rows' levels.
    fn tracks(&self) -> Vec<(String, Vec<Value>)> {
        let tracks = self.index["tracks"].as_array().unwrap().iter();
        tracks
            .map(|track| {
                let name = track["name"].as_str().unwrap().to_owned();
                (name, track["rows"].as_array().unwrap().clone())
            })
            .collect()
    }

    fn decode(&self, level: &Value) -> Vec<Block> {
        let number = |at: usize| level[at].as_u64().unwrap() as usize;
        let bytes = &self.parts[number(2)][number(3)..][..number(4)];
        let mut bytes = bytes.iter();
        let mut next = || {
            let (mut n, mut shift) = (0u64, 0);
            loop {
                let byte = *bytes.next().unwrap();
                n |= u64::from(byte & 127) << shift;
                shift += 7;
                if byte < 128 {
                    return n;
                }
            }
        };
        let (mut begin, mut detail) = (0, 0i64);
        let mut blocks = Vec::new();
        for _ in 0..number(1) {
            begin += next();
            let len = next().checked_sub(1);
            let kind = next() as usize;
            let count = if number(0) > 0 { next() } else { 1 };
            let which = (count == 1).then(|| {
                let step = next();
                detail += (step >> 1) as i64 ^ -((step & 1) as i64);
                detail as usize
            });
            blocks.push((begin, len.map(|len| begin + len), kind, count, which));
        }
        assert_eq!(bytes.len(), 0);
        blocks
    }

    /// The items of a row, as (begin, end, name, its field called `key`).
    fn items(&self, row: &Value, key: &str) -> Vec<(u64, Option<u64>, String, Value)> {
        let blocks = self.decode(&row[0]);
        let item = |(begin, end, kind, _, detail): &Block| {
            let name = self.index["kinds"][kind]["name"].as_str().unwrap().to_owned();
            (*begin, *end, name, self.details[detail.unwrap()][key].clone())
        };
        blocks.iter().map(item).collect()
    }
}

fn inflate(page: &str, id: &str) -> Vec<u8> {
    let begin = format!("<script type=\"text/plain\" id=\"{id}\">");
    let from = page.find(&begin).unwrap_or_else(|| panic!("no {id}")) + begin.len();
    let text = &page[from..][..page[from..].find('<').unwrap()];
    let deflated = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let mut bytes = Vec::new();
    flate2::read::DeflateDecoder::new(&deflated[..]).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn spans_lie_in_rows_and_apart() {
    let page = Page::of(&tangled());
    assert_eq!((&page.index["items"], &page.index["spans"]), (&8.into(), &7.into()));
    assert_eq!(page.index["total_ns"], 17_000);
    let tracks = page.tracks();
    let names: Vec<&str> = tracks.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["one 101", "a:inner (across threads)"]);
    let [moments, outer, inner] = &tracks[0].1[..] else { panic!("{:?}", tracks[0].1) };
    let named = |row: &Value, key: &str| -> Vec<(u64, Option<u64>, Value)> {
        page.items(row, key).into_iter().map(|(begin, end, _, value)| (begin, end, value)).collect()
    };
    assert_eq!(named(moments, "took"), [(17_000, Some(17_000), 44.into())]);
    let want =
        [(0, Some(8000), 1.into()), (9000, Some(11_000), 6.into()), (16_000, None, 7.into())];
    assert_eq!(named(outer, "span"), want);
    assert_eq!(named(inner, "span"), [(1, Some(1), 2.into()), (2, Some(2), 3.into())]);
    let apart = named(&tracks[1].1[0], "span");
    assert_eq!(apart, [(1000, Some(4000), 4.into()), (10_000, Some(14_000), 5.into())]);
    assert_eq!(page.items(outer, "n")[0].2, "a:outer");
    let kinds = page.index["kinds"].as_array().unwrap();
    let kind = kinds.iter().find(|kind| kind["name"] == "a:outer").unwrap();
    assert_eq!(kind["fields"][2], serde_json::json!(["n", "u32", "About n."]));
}

#[test]
fn each_level_of_a_page_counts_all_events() {
    let page = Page::of(&busy(5000).write());
    let mut items = 0;
    for (name, rows) in page.tracks() {
        for row in &rows {
            let levels = row.as_array().unwrap();
            let all = page.decode(&levels[0]);
            items += all.len() as u64;
            assert!(all.is_sorted_by_key(|block| block.0), "{name}");
            for level in levels {
                let blocks = page.decode(level);
                assert_eq!(blocks.iter().map(|block| block.3).sum::<u64>(), all.len() as u64);
                let (begin, end) = (blocks[0].0, blocks.last().unwrap().1);
                assert_eq!((begin, end), (all[0].0, all.last().unwrap().1), "{name}");
            }
        }
    }
    assert_eq!(page.index["items"], items);
}

#[test]
fn what_a_program_says_is_not_part_of_the_page() {
    let page = Page::of(&every_type().write());
    // A value of it is a sequence that would clear a terminal; none of them is in the page as it is.
    assert!(!page.text.contains('\u{1b}') && !page.text.contains("a\\\"b"));
    let (begin, end, name, value) = page.items(&page.tracks()[0].1[0], "string").remove(0);
    assert_eq!((begin, end, name.as_str()), (0, Some(0), "all:types"));
    assert_eq!(value, "a\"b\0c");
    assert_eq!(page.details[0]["a_u64"], u64::MAX);
}
