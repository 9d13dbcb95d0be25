//! `fodder store add`

use super::arguments::{AddArguments, AddMode};
use crate::{diagnose::Failure, words::print_line};
use fodder_store::Store;
use std::{
    collections::BTreeSet,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// Texts are expressions' words, not archives.
const TEXT_LIMIT_BYTES: u64 = 1 << 30;

pub(crate) fn add(store: &Store, arguments: &AddArguments) -> Result<u8, Failure> {
    let AddArguments { files, name, mode } = arguments;
    if name.is_some() && files.len() > 1 {
        return Err(Failure::new("error: --name is for a single file", 2));
    }
    for file in files {
        let name = match name {
            Some(name) => name.clone(),
            None => name_of(file)?,
        };
        let now = seconds_since_1970();
        let info = match mode {
            AddMode::Nar => store.add_source(&name, file, now)?,
            AddMode::Flat => store.add_file(&name, file, now)?,
            AddMode::Text => store.add_text(&name, &text_of(file)?, &BTreeSet::new(), now)?,
        };
        print_line(&info.path.to_string());
    }
    Ok(0)
}

pub(crate) fn seconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn name_of(file: &Path) -> Result<String, Failure> {
    let name = file.components().next_back().map(|part| part.as_os_str().to_owned());
    match name.as_ref().and_then(|name| name.to_str()).filter(|name| !matches!(*name, "." | ".." | "/")) {
        Some(name) => Ok(name.to_owned()),
        None => {
            let text = format!("error: '{}' gives no name for a store path", file.display());
            Err(Failure::new(text, 1).with_hint("name it with --name NAME"))
        }
    }
}

fn text_of(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("error: cannot read '{}': {error}", file.display()), 1);
    let status = file.metadata().map_err(failed)?;
    if !status.is_file() || status.len() > TEXT_LIMIT_BYTES {
        return Err(Failure::new(
            format!("error: '{}' is not a text: no regular file, or too large", file.display()),
            1,
        ));
    }
    std::fs::read(file).map_err(failed)
}
