//! `fodder store verify`

use super::arguments::VerifyArguments;
use crate::{
    diagnose::Failure,
    words::{harmless, print_note},
};
use fodder_store::{Store, VerifyEvent, chain};

pub(crate) fn verify(store: &Store, arguments: &VerifyArguments) -> Result<u8, Failure> {
    let VerifyArguments { check_contents } = arguments;
    print_note("reading the Nix store...");
    let is_sound = store.verify(*check_contents, &mut |event| print_note(&words(&event)))?;
    if is_sound {
        return Ok(0);
    }
    print_note("warning: not all store errors were fixed");
    Ok(1)
}

/// Nix's words.
fn words(event: &VerifyEvent) -> String {
    match event {
        VerifyEvent::CheckingExistence => "checking path existence...".to_owned(),
        VerifyEvent::CheckingLinks => "checking link hashes...".to_owned(),
        VerifyEvent::CheckingContents => "checking store hashes...".to_owned(),
        VerifyEvent::Disappeared(path) => format!("path '{path}' disappeared, removing from database..."),
        VerifyEvent::DisappearedWithReferrers(path) => {
            format!("path '{path}' disappeared, but it still has valid referrers!")
        }
        VerifyEvent::Modified { path, expected, found } => format!(
            "path '{path}' was modified! expected hash 'sha256:{}', got 'sha256:{}'",
            expected.to_nix32(),
            found.to_nix32()
        ),
        VerifyEvent::LinkModified { path, found } => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let text =
                format!("link '{}' was modified! expected hash '{name}', got '{}'", path.display(), found.to_nix32());
            harmless(text.as_bytes())
        }
        VerifyEvent::Unreadable { path, error } => {
            format!("error: path '{path}': {}", harmless(chain(error).as_bytes()))
        }
    }
}
