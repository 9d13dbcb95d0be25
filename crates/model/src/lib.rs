//! What everything *is* and what *will be done*: hashes, store paths, derivation formats, plans.
//!
//! Pure: no files, clock, environment, processes or threads. Everything here can be called by a program that runs on
//! another machine than the one that will build.
#![forbid(unsafe_code)]

pub mod bytes;
pub mod hash;
pub mod nar;
pub mod nix32;
pub mod sandbox;
pub mod store_path;
