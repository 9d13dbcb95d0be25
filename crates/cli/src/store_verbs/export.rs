//! `fodder store export` and `fodder store import`

use super::{add::seconds_since_1970, arguments::ExportArguments, names::store_paths};
use crate::{diagnose::Failure, words::print_line};
use fodder_store::{Store, references_first};
use std::io::{BufReader, BufWriter, IsTerminal};

/// Sources come in pieces of this size: the store reads in small ones.
const BUFFER_SIZE: usize = 128 * 1024;

pub(crate) fn export(store: &Store, arguments: &ExportArguments) -> Result<u8, Failure> {
    let ExportArguments { paths, recursive } = arguments;
    let mut paths = store_paths(store, paths)?;
    let output = std::io::stdout();
    if output.is_terminal() {
        return Err(Failure::new("error: an export is no text; send it to a file or a program", 2));
    }
    if *recursive {
        store.add_temporary_roots(&paths)?;
        paths = references_first(&store.closure(&paths)?);
    }
    store.export(&paths, &mut BufWriter::with_capacity(BUFFER_SIZE, output.lock()))?;
    Ok(0)
}

pub(crate) fn import(store: &Store) -> Result<u8, Failure> {
    let input = BufReader::with_capacity(BUFFER_SIZE, std::io::stdin().lock());
    for path in store.import(input, seconds_since_1970())? {
        print_line(&path.to_string());
    }
    Ok(0)
}
