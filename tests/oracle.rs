//! The same derivations, built by the distribution's real Nix and by fodder: paths, hashes, references, logs and endings must be
//! the same. What is not, is a case of its own with both endings written down, and a line in `docs/differences-from-nix.md`.

mod cases; // the table
mod graphs; // reference graphs of derivations
pub(crate) mod nix; // real Nix in a laboratory
mod short_form; // real Nix builds what `show` prints
mod trees; // output trees nobody would think of
