//! `fodder store generate-key`

use super::arguments::GenerateKeyArguments;
use crate::{
    diagnose::Failure,
    words::{print_line, print_note},
};
use fodder_model::signature::SecretKey;
use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt};

pub(crate) fn generate_key(arguments: &GenerateKeyArguments) -> Result<u8, Failure> {
    let GenerateKeyArguments { name, secret_key_file } = arguments;
    let seed = fodder_store::random_seed()?;
    let secret = SecretKey::from_seed(name, &seed).map_err(|error| Failure::new(format!("error: {error}"), 2))?;
    match secret_key_file {
        // As `nix key generate-secret` does; the public key goes where no pipe takes it for the secret.
        None => {
            print_line(&secret.to_text());
            print_note(&format!("public key: {}", secret.public()));
        }
        Some(file) => {
            let write = || {
                let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
                opened.write_all(secret.to_text().as_bytes())?;
                opened.sync_all()
            };
            write().map_err(|error| Failure::new(format!("error: cannot write '{}': {error}", file.display()), 1))?;
            print_line(&secret.public().to_string());
        }
    }
    Ok(0)
}
