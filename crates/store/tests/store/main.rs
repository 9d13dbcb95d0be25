//! The store against real files, real processes and the distribution's real Nix.
#![allow(missing_docs, reason = "a test binary has no readers of its documentation")]

#[path = "../../../../tests/aim.rs"]
mod aim; // shared with the tests of the whole program
mod caches;
mod collecting;
mod concurrency;
mod databases;
mod downloads;
mod evil_archives;
mod guards;
mod importing;
mod lab;
mod opening;
mod publishing;
mod removing;
mod roots;
mod sources;
mod upkeep;
mod with_nix;
