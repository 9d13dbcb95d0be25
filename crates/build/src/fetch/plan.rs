//! Asking caches for paths and all that these refer to. Nothing is downloaded but narinfos.

use super::{FetchEvent, Fetcher, retry_warnings, workers};
use crate::error::BuildError;
use fodder_model::{narinfo::NarInfo, store_path::StorePath};
use fodder_store::{CacheConnection, CacheError, PathInfo, chain};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering, mpsc},
};

/// What will be copied, and what cannot be.
#[derive(Debug, Default)]
pub struct FetchPlan {
    /// Paths that can be copied, with everything they refer to.
    pub(super) offers: BTreeMap<StorePath, Offer>,
    /// Why others cannot be.
    pub(super) failed: BTreeMap<StorePath, String>,
}

/// What a cache has.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) info: PathInfo,
    pub(super) narinfo: NarInfo,
    /// Number of the cache.
    pub(super) cache: usize,
}

impl FetchPlan {
    /// Whether a path can be copied.
    pub fn offers(&self, path: &StorePath) -> bool {
        self.offers.contains_key(path)
    }

    /// Why a path cannot be copied, if it was asked for.
    pub fn failure(&self, path: &StorePath) -> Option<&str> {
        self.failed.get(path).map(String::as_str)
    }

    /// The paths that can be copied.
    pub fn paths(&self) -> impl Iterator<Item = &StorePath> {
        self.offers.keys()
    }

    /// Leaves out what none of these paths needs.
    pub fn restrict<'a>(&mut self, wanted: impl IntoIterator<Item = &'a StorePath>) {
        let mut open: Vec<StorePath> = wanted.into_iter().cloned().collect();
        let mut kept = BTreeMap::new();
        while let Some(path) = open.pop() {
            if let Some(offer) = self.offers.remove(&path) {
                open.extend(offer.info.references.iter().cloned());
                kept.insert(path, offer);
            }
        }
        self.offers = kept;
    }

    /// Adds what another plan could not do.
    pub fn note_failures(&mut self, other: FetchPlan) {
        self.failed.extend(other.failed);
    }

    /// Adds another plan.
    pub fn merge(&mut self, other: FetchPlan) {
        self.offers.extend(other.offers);
        self.failed.extend(other.failed);
    }
}

/// What the threads share.
struct State {
    open: Vec<StorePath>,
    seen: BTreeSet<StorePath>,
    running: usize,
    plan: FetchPlan,
    error: Option<BuildError>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fetcher<'_> {
    /// Finds out what of these paths and of their closures can be copied. Paths that are valid need not be.
    pub fn plan(
        &self,
        wanted: &BTreeSet<StorePath>,
        observe: &mut dyn FnMut(FetchEvent),
    ) -> Result<FetchPlan, BuildError> {
        if wanted.is_empty() || self.is_empty() {
            return Ok(FetchPlan::default());
        }
        let state = Mutex::new(State {
            open: wanted.iter().cloned().collect(),
            seen: wanted.clone(),
            running: 0,
            plan: FetchPlan::default(),
            error: None,
        });
        let changed = Condvar::new();
        let (sender, events) = mpsc::channel();
        std::thread::scope(|scope| {
            // References turn up later, so there may be more to do than it looks.
            for _ in 0..workers(usize::MAX) {
                let (sender, state, changed) = (sender.clone(), &state, &changed);
                scope.spawn(move || self.ask(state, changed, &sender));
            }
            drop(sender);
            events.into_iter().for_each(&mut *observe);
        });
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.error {
            Some(error) => Err(error),
            None => Ok(complete(state.plan, self.store)?),
        }
    }

    fn ask(&self, state: &Mutex<State>, changed: &Condvar, events: &mpsc::Sender<FetchEvent>) {
        let mut connections = Connections::default();
        loop {
            let mut shared = lock(state);
            let path = loop {
                match shared.open.pop() {
                    Some(path) if shared.error.is_none() => break Some(path),
                    Some(_) => {}
                    None if shared.running == 0 => break None,
                    None => shared = changed.wait(shared).unwrap_or_else(PoisonError::into_inner),
                }
            };
            let Some(path) = path else {
                changed.notify_all();
                return;
            };
            shared.running += 1;
            drop(shared);
            let result = self.ask_for(&path, &mut connections, events);
            let mut shared = lock(state);
            shared.running -= 1;
            match result {
                Ok(Answer::Valid) => {}
                Ok(Answer::Offer(offer)) => {
                    for reference in &offer.info.references {
                        if shared.seen.insert(reference.clone()) {
                            shared.open.push(reference.clone());
                        }
                    }
                    shared.plan.offers.insert(path, *offer);
                }
                Ok(Answer::Nothing(reason)) => {
                    shared.plan.failed.insert(path, reason);
                }
                Err(error) => {
                    shared.error.get_or_insert(error);
                }
            }
            changed.notify_all();
        }
    }

    fn ask_for<'a>(
        &'a self,
        path: &StorePath,
        connections: &mut Connections<'a>,
        events: &mpsc::Sender<FetchEvent>,
    ) -> Result<Answer, BuildError> {
        // Before the question, or a collector may delete the path after the answer.
        self.store.add_temporary_roots([path])?;
        if self.store.is_valid(path)? {
            return Ok(Answer::Valid);
        }
        Ok(match self.offer(path, 0, connections, events) {
            Ok(offer) => Answer::Offer(Box::new(offer)),
            Err(reason) => Answer::Nothing(reason),
        })
    }

    /// What the first of the caches from `first` on has that can be used. Failures are warnings, and returned as one text.
    pub(super) fn offer<'a>(
        &'a self,
        path: &StorePath,
        first: usize,
        connections: &mut Connections<'a>,
        events: &mpsc::Sender<FetchEvent>,
    ) -> Result<Offer, String> {
        let mut reasons = Vec::new();
        for (number, source) in self.caches.iter().enumerate().skip(first).filter(|(_, source)| source.is_up()) {
            let found = connections.get(self, number).and_then(|connection| {
                let Some(narinfo) = connection.lookup(path, retry_warnings(events))? else { return Ok(None) };
                let info = source.cache.accept(&narinfo, &self.keys, self.time)?;
                Ok(Some(Offer { info, narinfo, cache: number }))
            });
            match found {
                Ok(Some(offer)) => return Ok(offer),
                Ok(None) => {}
                Err(error) => {
                    let is_first =
                        !matches!(error, CacheError::Http { .. }) || !source.is_down.swap(true, Ordering::Relaxed);
                    let text = chain(&error);
                    if is_first {
                        let _ = events.send(FetchEvent::Warning(text.clone()));
                    }
                    reasons.push(text);
                }
            }
        }
        Err(if reasons.is_empty() { "no binary cache has it".to_owned() } else { reasons.join("; ") })
    }
}

/// What is known of a path.
enum Answer {
    Valid,
    Offer(Box<Offer>),
    Nothing(String),
}

/// One thread's connections, made when they are needed.
#[derive(Default)]
pub(super) struct Connections<'a>(HashMap<usize, CacheConnection<'a>>);

impl<'a> Connections<'a> {
    pub(super) fn get(&mut self, fetcher: &'a Fetcher<'_>, number: usize) -> Result<&CacheConnection<'a>, CacheError> {
        use std::collections::hash_map::Entry;
        Ok(match self.0.entry(number) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(fetcher.caches[number].cache.connect()?),
        })
    }
}

/// Takes out what refers to something that cannot be had, or to itself through others.
fn complete(mut plan: FetchPlan, store: &fodder_store::Store) -> Result<FetchPlan, BuildError> {
    let mut waits: BTreeMap<StorePath, BTreeSet<StorePath>> = BTreeMap::new();
    let mut referrers: BTreeMap<StorePath, Vec<StorePath>> = BTreeMap::new();
    for (path, offer) in &plan.offers {
        let others = offer.info.references.iter().filter(|reference| *reference != path);
        let mut missing = BTreeSet::new();
        for reference in others {
            if plan.offers.contains_key(reference) || !store.is_valid(reference)? {
                missing.insert(reference.clone());
                referrers.entry(reference.clone()).or_default().push(path.clone());
            }
        }
        waits.insert(path.clone(), missing);
    }
    let mut ready: Vec<StorePath> =
        waits.iter().filter(|(_, missing)| missing.is_empty()).map(|(path, _)| path.clone()).collect();
    while let Some(path) = ready.pop() {
        waits.remove(&path);
        for referrer in referrers.get(&path).into_iter().flatten() {
            if let Some(missing) = waits.get_mut(referrer) {
                missing.remove(&path);
                if missing.is_empty() {
                    ready.push(referrer.clone());
                }
            }
        }
    }
    for (path, missing) in waits {
        plan.offers.remove(&path);
        // The cause rather than a link in the chain, where there is one.
        let cause = missing.iter().find_map(|reference| plan.failed.get(reference).map(|reason| (reference, reason)));
        let reason = match (cause, missing.first()) {
            (Some((reference, reason)), _) => format!("it refers to '{reference}': {reason}"),
            (None, Some(reference)) => format!("it refers to '{reference}', which cannot be copied either"),
            (None, None) => "it cannot be copied".to_owned(),
        };
        plan.failed.insert(path, reason);
    }
    Ok(plan)
}
