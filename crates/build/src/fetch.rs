//! Copying closures from binary caches into the store: first all questions, then all downloads, references before what refers to
//! them, several at a time.
//!
//! A cache that fails is a warning, never the end: what it had can be asked of the next one, or built.

mod download;
mod plan;
mod upload;

pub use plan::FetchPlan;
pub use upload::upload;

use crate::{error::BuildError, host};
use fodder_model::{signature::PublicKey, store_path::StorePath};
use fodder_store::{BinaryCache, CacheLocation, HttpSettings, Store, chain};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

/// Downloads at once. The slowest decompressor, bzip2, keeps a processor busy with 40 MB/s.
const WORKERS: usize = 8;

/// Where to look for what would otherwise be built, and who is believed.
#[derive(Clone, Debug, Default)]
pub struct Substitution {
    /// `--substituters`
    pub caches: Vec<CacheLocation>,
    /// `--trusted-public-keys`
    pub keys: Vec<PublicKey>,
}

/// Something that happens while paths are copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchEvent {
    /// A path's download begins.
    Started {
        /// The path.
        path: StorePath,
        /// The cache.
        url: String,
    },
    /// A path is written to a cache.
    Writing {
        /// The path.
        path: StorePath,
        /// The cache.
        url: String,
    },
    /// How far it is, all in all.
    Progress {
        /// Paths that are there.
        done: usize,
        /// Paths that were planned.
        paths: usize,
        /// Bytes of archives that were unpacked.
        bytes: u64,
        /// Bytes of all planned archives.
        total_bytes: u64,
    },
    /// All downloads have ended, well or not.
    Finished,
    /// Something went wrong that need not matter.
    Warning(String),
}

/// What became of the paths of a plan.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Paths that are valid now and were not before.
    pub new: BTreeSet<StorePath>,
    /// Why others are not.
    pub failed: BTreeMap<StorePath, String>,
}

/// Caches that can be asked.
#[derive(Debug)]
pub struct Fetcher<'a> {
    store: &'a Store,
    caches: Vec<Source>,
    keys: Vec<PublicKey>,
    time: i64,
}

#[derive(Debug)]
struct Source {
    cache: BinaryCache,
    /// Did not answer even when it was asked again; it is left alone from then on.
    is_down: AtomicBool,
}

impl<'a> Fetcher<'a> {
    /// Opens the caches; one that cannot be opened is a warning. Caches that take a network are passed over when there is to be
    /// none. `time` is recorded as the registration time, in seconds since 1970.
    pub fn open(
        store: &'a Store,
        substitution: &Substitution,
        is_offline: bool,
        ca_file: Option<&Path>,
        time: i64,
        observe: &mut dyn FnMut(FetchEvent),
    ) -> Result<Self, BuildError> {
        // What a killed run had begun to unpack.
        store.remove_leftovers()?;
        let wanted: Vec<&CacheLocation> =
            substitution.caches.iter().filter(|location| !(is_offline && location.is_remote())).collect();
        let settings = match wanted.iter().any(|location| location.is_remote()) {
            true => host::http_settings(ca_file)?,
            false => HttpSettings { certificates: Vec::new(), attempts: 1, proxies: Default::default() },
        };
        let (sender, events) = mpsc::channel();
        let mut opened: Vec<(usize, BinaryCache)> = Vec::new();
        std::thread::scope(|scope| {
            for (index, location) in wanted.into_iter().enumerate() {
                let (sender, settings) = (sender.clone(), &settings);
                scope.spawn(move || {
                    let cache = BinaryCache::open(location.clone(), settings, retry_warnings(&sender));
                    let _ = sender.send(Opening::Done(index, Box::new(cache)));
                });
            }
            drop(sender);
            for event in events {
                match event {
                    Opening::Event(event) => observe(event),
                    Opening::Done(index, cache) => match *cache {
                        Ok(cache) => opened.push((index, cache)),
                        Err(error) => {
                            observe(FetchEvent::Warning(format!("{}; going on without it", chain(&error))));
                        }
                    },
                }
            }
        });
        // In the order in which they were given, where they do not say otherwise themselves.
        opened.sort_by_key(|(index, cache)| (cache.priority(), *index));
        let caches = opened.into_iter().map(|(_, cache)| Source { cache, is_down: AtomicBool::new(false) }).collect();
        Ok(Fetcher { store, caches, keys: substitution.keys.clone(), time })
    }

    /// Whether there is nobody to ask.
    pub fn is_empty(&self) -> bool {
        self.caches.is_empty()
    }
}

/// What the threads that open caches say.
enum Opening {
    Event(FetchEvent),
    Done(usize, Box<Result<BinaryCache, fodder_store::CacheError>>),
}

impl From<FetchEvent> for Opening {
    fn from(event: FetchEvent) -> Self {
        Opening::Event(event)
    }
}

/// Tells of downloads that are tried again.
fn retry_warnings<E: From<FetchEvent> + Send>(events: &mpsc::Sender<E>) -> fodder_store::OnRetry<'_> {
    let events = events.clone();
    Box::new(move |error, wait| {
        // An error page of some length helps nobody before the last try.
        let text = chain(error);
        let line = text.lines().next().unwrap_or_default();
        let warning = format!("{line}; retrying in {} ms", wait.as_millis());
        let _ = events.send(FetchEvent::Warning(warning).into());
    })
}

impl Source {
    fn is_up(&self) -> bool {
        !self.is_down.load(Ordering::Relaxed)
    }
}

/// A number of threads for so many things to do.
fn workers(count: usize) -> usize {
    count.clamp(1, WORKERS)
}
