//! Every test that needs the whole program. One binary, so that it links once; a line for what belongs in each module.
#![allow(missing_docs, unreachable_pub, reason = "a test binary has no interface")]

mod aim; // when to kill something that is at work
mod judge; // real Nix on the lab's store
mod lab; // a fresh store and directory for each test, and one command
mod recipe; // derivations for tests
mod server; // an HTTPS server with its own authority

mod attacks; // what hostile builds try, each beside a control run in which it works

mod architecture; // the crates depend on each other as the design says
mod bad_input; // files that are refused, and what is said about them
mod builtins; // builders that are part of the program
mod caches; // binary caches, read and written, whole and broken
mod content_addressed; // outputs whose path follows from what is in them
mod dependencies; // what is built first
mod differences; // the page of differences from Nix is true
mod documentation; // the pages and the README tell the truth
mod examples; // every folder of examples/
mod flags; // links, standard input, limits and what is shown
mod flushed; // what is written beside the store, and power cuts
mod gateway; // the one door out of a fixed-output build
mod hostile_input; // files that mean harm
mod https; // fixed outputs fetch from a real server, and verify it
mod limits; // what a build may use up
mod log; // the log, stored and shown
mod lossless; // what is valid stays so, whoever is killed and whatever runs out
mod mentions; // the places that mention what they must not: how many, in which output, how deep
mod oracle; // the same as real Nix
mod outcomes; // how builds end: statuses, exit codes, words, JSON
mod outputs; // canonical form, references, declared hashes
mod planned; // what is planned for every build, field by field
mod recording; // builds that are recorded, replayed, and compared
mod rules; // the sandbox as a builder sees it
mod security; // every attack of the catalogue has a test, and the page lists it
mod setup_script; // the phases' own tests
mod store; // what is left behind, whatever happened
mod store_verbs; // `fodder store …`, beside real Nix
mod stripping; // references that a compiler leaves, and how they go
mod surroundings; // everything that a builder finds, and what flags add to it
mod terminal; // what others say cannot pass for words of ours
mod tools; // tools of the machine, wherever they are
mod verbs; // show, explain, hash, refs
