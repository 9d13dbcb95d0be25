//! What everything *is* and what *will be done*: hashes, store paths, derivation formats, plans.
//!
//! Pure: no files, clock, environment, processes or threads. Everything here can be called by a program that runs on
//! another machine than the one that will build.
#![forbid(unsafe_code)]

pub mod attributes;
pub mod bytes;
pub mod checks;
pub mod content_address;
pub mod derivation;
pub mod environment;
pub mod harmless;
pub mod hash;
pub mod host;
pub mod json;
pub mod limits;
pub mod nar;
pub mod narinfo;
pub mod netrc;
pub mod network_policy;
pub mod nix32;
pub mod options;
pub mod plan;
pub mod profile;
pub mod proxy;
pub mod recording;
pub mod reference_graph;
pub mod rewrite;
pub mod sandbox;
pub mod scan;
pub mod short_form;
pub mod signature;
pub mod store_path;
pub mod tar;
