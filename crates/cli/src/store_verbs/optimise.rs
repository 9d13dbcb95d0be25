//! `fodder store optimise`

use super::mebibytes;
use crate::{
    diagnose::Failure,
    words::{harmless, print_line, print_note},
};
use fodder_store::{OptimiseEvent, Store};

pub(crate) fn optimise(store: &Store) -> Result<u8, Failure> {
    let saved = store.optimise(&mut |event| {
        let text = match event {
            OptimiseEvent::Writable(path) => format!("skipping suspicious writable file '{}'", path.display()),
            OptimiseEvent::CorruptLink(path) => format!(
                "removing corrupted link '{}'; `fodder store verify --check-contents` finds the paths that share it",
                path.display()
            ),
        };
        print_note(&format!("warning: {}", harmless(text.as_bytes())));
    })?;
    print_line(&format!("{} freed by hard-linking {} files", mebibytes(saved.bytes), saved.files));
    Ok(0)
}
