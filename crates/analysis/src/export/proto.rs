//! Protocol buffers, as far as they are written here: numbers, doubles, bytes and messages in
//! messages, appended to a vector.

/// Wire types.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;

pub(super) fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// An unsigned number, a truth value, or a value of an enumeration.
pub(super) fn uint(out: &mut Vec<u8>, field: u64, n: u64) {
    varint(out, field << 3 | VARINT);
    varint(out, n);
}

/// An `int64`, in two's complement.
pub(super) fn int(out: &mut Vec<u8>, field: u64, n: i64) {
    uint(out, field, n as u64);
}

/// A `fixed64`.
pub(super) fn fixed(out: &mut Vec<u8>, field: u64, n: u64) {
    varint(out, field << 3 | FIXED64);
    out.extend(n.to_le_bytes());
}

pub(super) fn double(out: &mut Vec<u8>, field: u64, n: f64) {
    fixed(out, field, n.to_bits());
}

pub(super) fn text(out: &mut Vec<u8>, field: u64, text: &str) {
    bytes(out, field, text.as_bytes());
}

pub(super) fn bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | LENGTH);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A message that `fill` writes. Its length takes one byte, or is moved in where it takes more.
pub(super) fn message(out: &mut Vec<u8>, field: u64, fill: impl FnOnce(&mut Vec<u8>)) {
    varint(out, field << 3 | LENGTH);
    let at = out.len();
    out.push(0);
    fill(out);
    let len = out.len() - at - 1;
    if len < 0x80 {
        out[at] = len as u8;
        return;
    }
    let mut spelled = Vec::with_capacity(10);
    varint(&mut spelled, len as u64);
    out.splice(at..=at, spelled);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_published_examples_have_it() {
        let mut out = Vec::new();
        uint(&mut out, 1, 150);
        assert_eq!(out, [0x08, 0x96, 0x01]);
        out.clear();
        text(&mut out, 2, "testing");
        assert_eq!(out, *b"\x12\x07testing");
        out.clear();
        int(&mut out, 1, -2);
        assert_eq!(out, [8, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    }

    #[test]
    fn long_messages_have_long_lengths() {
        for len in [0, 1, 127, 128, 129, 16_383, 16_384, 100_000] {
            let mut out = vec![7];
            message(&mut out, 3, |out| out.resize(out.len() + len, 9));
            let mut want = vec![7, 3 << 3 | 2];
            varint(&mut want, len as u64);
            want.resize(want.len() + len, 9);
            assert!(out == want, "{len}");
        }
    }
}
