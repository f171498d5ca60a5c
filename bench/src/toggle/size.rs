//! What a site costs in bytes: three small programs are built and their sections compared. Each has
//! 500 functions; in one they are plain, in one each has a `trace!` of an event with three fields, and
//! in one a `tracing::trace!` with the same three.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSection, SectionFlags};
use serde_json::{Value, json};

use super::Findings;

const SITES: u64 = 500;
const MOST_TEXT: f64 = 64.0;
const MOST_DATA: f64 = 96.0;
const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// Bytes of one site.
pub(super) struct Size {
    what: &'static str,
    text: f64,
    data: f64,
    unwind: f64,
}

impl Size {
    pub(super) fn json(&self) -> Value {
        json!({
            "suite": "toggle", "size": self.what, "text": self.text,
            "data_and_relocations": self.data, "unwind_tables": self.unwind,
        })
    }
}

/// Bytes of a whole program, by what they are.
#[derive(Debug, Default, Clone, Copy)]
struct Bytes {
    text: u64,
    data: u64,
    unwind: u64,
}

fn bytes(program: &Path) -> Result<Bytes, Box<dyn Error>> {
    let image = fs::read(program)?;
    let file = object::File::parse(&*image)?;
    let mut bytes = Bytes::default();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
        let name = section.name()?;
        if sh_flags.0 & object::elf::SHF_ALLOC.0 == 0 {
            continue;
        }
        if sh_flags.0 & object::elf::SHF_EXECINSTR.0 != 0 {
            bytes.text += section.size();
        } else if name.starts_with(".eh_frame") || name == ".gcc_except_table" {
            bytes.unwind += section.size();
        } else {
            bytes.data += section.size();
        }
    }
    Ok(bytes)
}

/// How many of the sites are one NOP that crosses no aligned word.
fn nops(program: &Path) -> Result<usize, Box<dyn Error>> {
    let image = fs::read(program)?;
    let file = object::File::parse(&*image)?;
    let records = file.section_by_name("gp1_sites").ok_or("no section gp1_sites")?;
    let text = file.section_by_name(".text").ok_or("no text")?;
    let starts = records.data()?.chunks_exact(12).zip((records.address()..).step_by(12));
    let is_nop = |(record, at): &(&[u8], u64)| {
        let distance = i32::from_le_bytes([record[0], record[1], record[2], record[3]]);
        let code = at.wrapping_add_signed(distance.into());
        code % 8 <= 3 && text.data_range(code, 5).is_ok_and(|found| found == Some(&NOP[..]))
    };
    Ok(starts.filter(is_nop).count())
}

/// The three programs' common source: `site` is the statement under test.
fn source(site: &str) -> String {
    let mut text = String::from(
        "#[derive(gracepoint::Event)] struct Three<'a> { number: u64, size: u64, name: &'a str }\n",
    );
    let mut table = String::new();
    for n in 0..SITES {
        let site = site.replace("SIZE", &format!("a ^ {n}"));
        let _ = writeln!(
            text,
            "#[inline(never)] fn f{n}(a: u64, name: &str) -> u64 {{ let _ = name; {site} a.wrapping_mul({n} + 3) }}"
        );
        let _ = write!(table, "f{n}, ");
    }
    let _ = write!(
        text,
        "static F: [fn(u64, &str) -> u64; {SITES}] = [{table}];\n\
         fn main() {{ let name = std::env::args().next().unwrap_or_default();\n\
         gracepoint::trace!(Three {{ number: 1, size: 2, name: &name }});\n\
         tracing::trace!(number = 1_u64, size = 2_u64, name = &*name);\n\
         let _ = gracepoint::init();\n\
         println!(\"{{}}\", F.iter().map(|f| f(std::hint::black_box(1), &name)).fold(0, u64::wrapping_add)); }}\n"
    );
    text
}

/// Builds the programs; their paths.
fn build(folder: &Path) -> Result<[PathBuf; 3], Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let gracepoint = root.join("crates/gracepoint");
    let sources = [
        ("plain", ""),
        ("sites", "gracepoint::trace!(Three { number: a, size: SIZE, name });"),
        ("callsites", "tracing::trace!(number = a, size = SIZE, name);"),
    ];
    fs::create_dir_all(folder.join("src/bin"))?;
    for (name, site) in sources {
        fs::write(folder.join(format!("src/bin/{name}.rs")), source(site))?;
    }
    fs::write(
        folder.join("Cargo.toml"),
        format!(
            "[package]\nname = \"sizes\"\nedition = \"2024\"\n[dependencies]\ngracepoint = {{ path = {gracepoint:?} }}\n\
             tracing = \"0.1\"\n[profile.release]\ndebug = false\n[workspace]\n"
        ),
    )?;
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock"))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--offline", "--quiet"]).current_dir(folder);
    cargo.env("CARGO_TARGET_DIR", folder.join("target")).env_remove("RUSTFLAGS");
    let output = cargo.output()?;
    if !output.status.success() {
        return Err(format!("building: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(["plain", "sites", "callsites"].map(|name| folder.join("target/release").join(name)))
}

/// Adds the sizes.
pub(super) fn of_sites(found: &mut Findings) -> Result<(), Box<dyn Error>> {
    let here = std::env::current_exe()?;
    let folder = here.parent().ok_or("a program lies in a folder")?.join("gracepoint-bench-sizes");
    let programs = build(&folder)?;
    let [plain, sites, callsites] = &programs;
    let base = bytes(plain)?;
    for (what, program) in [("trace!", sites), ("tracing::trace!", callsites)] {
        let whole = bytes(program)?;
        let each = |of: fn(&Bytes) -> u64| (of(&whole) as f64 - of(&base) as f64) / SITES as f64;
        let (text, data, unwind) = (each(|b| b.text), each(|b| b.data), each(|b| b.unwind));
        found.sizes.push(Size { what, text, data, unwind });
    }
    if gracepoint::patching() != "branch" {
        let nops = nops(sites)?;
        let what = format!("{nops} sites that are off are 1 instruction (a NOP) and 0 loads");
        found.goal(what, nops as u64 > SITES);
    }
    Ok(())
}

pub(super) fn judge(found: &mut Findings) {
    let Some(&Size { text, data, .. }) = found.sizes.first() else { return };
    found.goal(format!("{text:.0} bytes of text a site, at most {MOST_TEXT}"), text <= MOST_TEXT);
    let what = format!("{data:.0} bytes of data and relocations a site, at most {MOST_DATA}");
    found.goal(what, data <= MOST_DATA);
}

pub(super) fn table(sizes: &[Size]) -> String {
    let mut text = format!(
        "\n{:24}  {:>6}  {:>20}  {:>13}\n",
        "bytes of each of 500", "text", "data and relocations", "unwind tables"
    );
    for size in sizes {
        let Size { what, text: code, data, unwind } = size;
        let _ = writeln!(text, "{what:24}  {code:6.0}  {data:20.0}  {unwind:13.0}");
    }
    text.push('\n');
    text
}
