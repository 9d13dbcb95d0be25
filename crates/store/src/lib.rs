//! The store on disk, laid out exactly as Nix lays it out, so that real Nix can read, verify and collect it.
//!
//! A [`Store`] is opened on a root directory. Objects are made in a [`Scratch`] directory beside it, moved in under the
//! lock of their path ([`Store::lock_paths`], [`Store::publish`]) and become valid in one transaction
//! ([`Store::register`]); killed at any instant, this leaves a store that is valid, and scraps that the next run removes.
//!
//! Blocking; prints nothing; asks for no time and no environment. Says in every error what it was doing to which path.
#![forbid(unsafe_code)]

mod add;
mod cache;
mod collect;
mod database;
mod directory;
mod error;
mod export;
mod find_roots;
mod git;
mod http;
mod import;
mod leftovers;
mod liveness;
mod lock;
mod logs;
mod lower;
mod optimise;
mod order;
mod path_info;
mod publish;
mod query;
mod realisation;
mod register;
mod remove;
mod restore;
mod roots;
mod scratch;
mod store;
mod temporary_roots;
mod tree;
mod unpack_tar;
mod unpacked;
mod users;
mod verify;

pub use add::{dump, source_path};
pub use cache::{BinaryCache, CacheConnection, CacheError, CacheLocation, CacheWriter, Compression, Written};
pub use collect::{Collected, CollectionEvent, Garbage, Survey};
pub use directory::{random_name, random_seed};
pub use error::{ImportProblem, StoreError, chain};
pub use find_roots::{Root, RootHolder};
pub use git::object_id as git_object_id;
pub use http::{Http, HttpBody, HttpError, HttpSettings, OnRetry, Proxies};
pub use liveness::KeepRules;
pub use lock::PathLocks;
pub use optimise::{OptimiseEvent, Optimised};
pub use order::references_first;
pub use path_info::{PathInfo, Registration};
pub use realisation::Realisation;
pub use restore::restore;
pub use scratch::{Scratch, ScratchPart};
pub use store::Store;
pub use unpack_tar::unpack_tar;
pub use unpacked::Unpacked;
pub use users::{BuildUser, allocate_build_user, first_build_user};
pub use verify::VerifyEvent;
