//! What stands before a member because it does not fit into its header: pax records and GNU's long names.

use super::TarError;

#[derive(Clone, Copy, Debug)]
pub(super) enum Extension {
    Records,
    GlobalRecords,
    LongPath,
    LongTarget,
}

/// What extensions said of the member that follows.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// Whether there was one that a member must follow.
    is_for_a_member: bool,
    has_records: bool,
}

impl Extensions {
    pub(super) fn add(&mut self, extension: Extension, text: &[u8]) -> Result<(), &'static str> {
        match extension {
            Extension::LongPath => once(&mut self.path, long(text)?)?,
            Extension::LongTarget => once(&mut self.target, long(text)?)?,
            Extension::GlobalRecords => {
                // Such as the comment that git writes. What is said about all members would be forgotten by some readers.
                return records(text, |key, _| match is_about_contents(key) {
                    true => Err("a global extension says something about contents"),
                    false => Ok(()),
                });
            }
            Extension::Records => {
                if std::mem::replace(&mut self.has_records, true) {
                    return Err("two extensions are about one member");
                }
                records(text, |key, value| match key {
                    b"path" => once(&mut self.path, value.to_vec()),
                    b"linkpath" => once(&mut self.target, value.to_vec()),
                    b"size" => once(&mut self.size, decimal(value).ok_or("an extension's size is not a number")?),
                    key if is_about_contents(key) => Err("sparse files are not unpacked"),
                    _ => Ok(()),
                })?;
            }
        }
        self.is_for_a_member = true;
        Ok(())
    }

    /// At the end of an archive.
    pub(super) fn none_is_left(&self, offset: u64) -> Result<(), TarError> {
        match self.is_for_a_member {
            true => Err(TarError::Header { offset, problem: "an extension is about no member" }),
            false => Ok(()),
        }
    }
}

fn is_about_contents(key: &[u8]) -> bool {
    matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.")
}

/// A name and the NUL behind it.
fn long(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let name = text.strip_suffix(b"\0").unwrap_or(text);
    match name.is_empty() || name.contains(&0) {
        true => Err("a long name is malformed"),
        false => Ok(name.to_vec()),
    }
}

fn once<T>(field: &mut Option<T>, value: T) -> Result<(), &'static str> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err("extensions say the same thing twice"),
    }
}

/// Takes `LENGTH KEY=VALUE\n` apart, where the length is that of the whole record.
fn records(
    mut text: &[u8],
    mut take: impl FnMut(&[u8], &[u8]) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    let malformed = "an extension is malformed";
    while !text.is_empty() {
        let blank = text.iter().position(|byte| *byte == b' ').ok_or(malformed)?;
        let length = decimal(&text[..blank]).and_then(|length| usize::try_from(length).ok()).ok_or(malformed)?;
        let record = text.get(blank + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or(malformed)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(malformed)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() {
            return Err(malformed);
        }
        take(key, value)?;
        text = &text[length..];
    }
    Ok(())
}

/// Nothing but digits.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}
