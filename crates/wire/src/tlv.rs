//! Tag-length-value bodies: u16 tag, u32 length, bytes. A reader skips tags that it does not know,
//! so fields can be added without a new version; a tag may repeat, and lists are made that way.

use crate::{Error, Result};

/// Builds a body.
#[derive(Default)]
pub(crate) struct Builder {
    pub(crate) bytes: Vec<u8>,
}

impl Builder {
    pub(crate) fn bytes(&mut self, tag: u16, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(&tag.to_le_bytes());
        let len = u32::try_from(value.len()).expect("a field of a message is under 4 GiB");
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(value);
        self
    }

    pub(crate) fn str(&mut self, tag: u16, value: &str) -> &mut Self {
        self.bytes(tag, value.as_bytes())
    }

    pub(crate) fn u64(&mut self, tag: u16, value: u64) -> &mut Self {
        self.bytes(tag, &value.to_le_bytes())
    }

    pub(crate) fn nested(&mut self, tag: u16, fill: impl FnOnce(&mut Builder)) -> &mut Self {
        let mut inner = Builder::default();
        fill(&mut inner);
        self.bytes(tag, &inner.bytes)
    }
}

/// One field of a body.
#[derive(Clone, Copy)]
pub(crate) struct Item<'a> {
    pub(crate) tag: u16,
    pub(crate) value: &'a [u8],
}

impl<'a> Item<'a> {
    /// A number in 1 to 8 bytes.
    pub(crate) fn u64(&self) -> Result<u64> {
        if self.value.len() > 8 {
            return Err(Error::new(format!("number of {} bytes in a message", self.value.len())));
        }
        let mut word = [0; 8];
        word[..self.value.len()].copy_from_slice(self.value);
        Ok(u64::from_le_bytes(word))
    }

    pub(crate) fn u32(&self) -> Result<u32> {
        u32::try_from(self.u64()?).map_err(|_| Error::new("number in a message exceeds 32 bits"))
    }

    pub(crate) fn string(&self) -> Result<String> {
        let text = std::str::from_utf8(self.value);
        Ok(text.map_err(|_| Error::new("text in a message is not UTF-8"))?.to_owned())
    }
}

/// Walks a body; stops with an error at a field that runs over its end.
pub(crate) fn items(mut body: &[u8]) -> impl Iterator<Item = Result<Item<'_>>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let item = split(body);
        body = match &item {
            Ok((_, rest)) => rest,
            Err(_) => &[],
        };
        Some(item.map(|(item, _)| item))
    })
}

fn split(body: &[u8]) -> Result<(Item<'_>, &[u8])> {
    let cut = || Error::new("message is cut in the middle of a field");
    let (tag, rest) = body.split_first_chunk::<2>().ok_or_else(cut)?;
    let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(cut)?;
    Ok((Item { tag: u16::from_le_bytes(*tag), value }, rest))
}
