//! The same derivations, built by the distribution's real Nix and by fodder: paths, hashes, references, logs and endings must be
//! the same. What is not, is a case of its own with both endings written down, and a line in `docs/differences-from-nix.md`.

mod cases; // the groups of the table
mod graphs; // reference graphs of derivations
mod group; // a group of the table, built by both
pub(crate) mod nix; // real Nix in a laboratory
mod properties; // names, environments, arguments and attributes nobody would think of
mod short_form; // real Nix builds what `show` prints
mod trees; // output trees nobody would think of
