//! Downloading what was planned. Each path becomes valid by itself, as soon as it is complete and what it refers to is valid, so
//! a run that is killed loses only what it was at.

use super::{
    FetchEvent, Fetched, Fetcher,
    plan::{Connections, FetchPlan, Offer},
    retry_warnings, workers,
};
use crate::error::BuildError;
use fodder_model::store_path::StorePath;
use fodder_store::{CacheError, chain};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc},
};

/// Bytes between two reports of one download.
const REPORT_SIZE: u64 = 256 * 1024;

/// What the threads say.
enum Message {
    Event(FetchEvent),
    Bytes(u64),
    Done,
    /// Bytes that were reported for a download that failed.
    Undone(u64),
}

impl From<FetchEvent> for Message {
    fn from(event: FetchEvent) -> Self {
        Message::Event(event)
    }
}

struct State {
    waiting: BTreeMap<StorePath, (Offer, BTreeSet<StorePath>)>,
    running: usize,
    fetched: Fetched,
    error: Option<BuildError>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fetcher<'_> {
    /// Copies what a plan offers.
    pub fn fetch(&self, plan: FetchPlan, observe: &mut dyn FnMut(FetchEvent)) -> Result<Fetched, BuildError> {
        let FetchPlan { offers, failed } = plan;
        if offers.is_empty() {
            return Ok(Fetched { failed, ..Fetched::default() });
        }
        let total_bytes = offers.values().map(|offer| offer.info.nar_size).fold(0, u64::saturating_add);
        let paths = offers.len();
        let planned: BTreeSet<StorePath> = offers.keys().cloned().collect();
        let waiting = offers.into_iter().map(|(path, offer)| {
            let others = offer.info.references.iter().filter(|other| **other != path && planned.contains(*other));
            let waits_for = others.cloned().collect();
            (path, (offer, waits_for))
        });
        let state = Mutex::new(State {
            waiting: waiting.collect(),
            running: 0,
            fetched: Fetched { failed, ..Fetched::default() },
            error: None,
        });
        let changed = Condvar::new();
        let (sender, messages) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..workers(paths) {
                let (sender, state, changed) = (sender.clone(), &state, &changed);
                scope.spawn(move || self.work(state, changed, &sender));
            }
            drop(sender);
            let (mut done, mut bytes) = (0, 0u64);
            observe(FetchEvent::Progress { done, paths, bytes, total_bytes });
            for message in messages {
                match message {
                    Message::Event(event) => {
                        observe(event);
                        continue;
                    }
                    Message::Bytes(more) => bytes += more,
                    Message::Undone(less) => bytes = bytes.saturating_sub(less),
                    Message::Done => done += 1,
                }
                observe(FetchEvent::Progress { done, paths, bytes, total_bytes });
            }
            observe(FetchEvent::Finished);
        });
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.error {
            Some(error) => Err(error),
            None => Ok(state.fetched),
        }
    }

    fn work(&self, state: &Mutex<State>, changed: &Condvar, messages: &mpsc::Sender<Message>) {
        let mut connections = Connections::default();
        loop {
            let mut shared = lock(state);
            let job = loop {
                let ready = shared.waiting.iter().find(|(_, (_, waits_for))| waits_for.is_empty());
                match ready.map(|(path, _)| path.clone()) {
                    _ if shared.error.is_some() => break None,
                    Some(path) => break shared.waiting.remove_entry(&path),
                    None if shared.running == 0 => break None,
                    None => shared = changed.wait(shared).unwrap_or_else(PoisonError::into_inner),
                }
            };
            let Some((path, (offer, _))) = job else {
                changed.notify_all();
                return;
            };
            shared.running += 1;
            drop(shared);
            let result = self.download(offer, &mut connections, messages);
            let mut shared = lock(state);
            shared.running -= 1;
            match result {
                Ok(is_new) => {
                    for (_, waits_for) in shared.waiting.values_mut() {
                        waits_for.remove(&path);
                    }
                    if is_new {
                        shared.fetched.new.insert(path);
                    }
                    let _ = messages.send(Message::Done);
                }
                Err(Failure::Path(reason)) => fail(&mut shared, path, reason),
                Err(Failure::Everything(error)) => {
                    shared.error.get_or_insert(error);
                }
            }
            changed.notify_all();
        }
    }

    /// Copies one path from the cache that offered it or, when that fails, from the next one that offers the same.
    fn download<'a>(
        &'a self,
        mut offer: Offer,
        connections: &mut Connections<'a>,
        messages: &mpsc::Sender<Message>,
    ) -> Result<bool, Failure> {
        let path = offer.info.path.clone();
        let mut reasons = Vec::new();
        loop {
            match self.download_from(&offer, connections, messages) {
                Ok(is_new) => return Ok(is_new),
                Err(error @ BuildError::Cache(_)) => {
                    let url = self.caches[offer.cache].cache.url();
                    let reason = format!("cannot copy '{path}' from '{url}': {}", chain(&error));
                    let _ = messages.send(FetchEvent::Warning(reason.clone()).into());
                    reasons.push(reason);
                }
                Err(error) => return Err(Failure::Everything(error)),
            }
            let (events, received) = mpsc::channel();
            let next = self.offer(&path, offer.cache + 1, connections, &events);
            drop(events);
            received.into_iter().for_each(|event| drop(messages.send(event.into())));
            match next {
                // Other references may not be there, and are not what was planned.
                Ok(next) if next.info.references == offer.info.references => offer = next,
                Ok(_) | Err(_) => return Err(Failure::Path(reasons.join("; "))),
            }
        }
    }

    fn download_from<'a>(
        &'a self,
        offer: &Offer,
        connections: &mut Connections<'a>,
        messages: &mpsc::Sender<Message>,
    ) -> Result<bool, BuildError> {
        let Offer { info, narinfo, cache } = offer;
        let connection = connections.get(self, *cache)?;
        let reported = std::cell::Cell::new(0);
        let on_wait = |path: &StorePath| {
            let text = format!("waiting for the lock on '{path}' (somebody else is making it)");
            let _ = messages.send(FetchEvent::Warning(text).into());
        };
        let open = || {
            let url = self.caches[*cache].cache.url().to_owned();
            let _ = messages.send(FetchEvent::Started { path: info.path.clone(), url }.into());
            let archive = connection.archive(narinfo, retry_warnings(messages))?;
            Ok::<_, CacheError>(Counted { archive, unreported: 0, reported: &reported, messages })
        };
        match self.store.add_nar(info, on_wait, open) {
            Ok((_, is_new)) => Ok(is_new),
            Err(error) => {
                let _ = messages.send(Message::Undone(reported.get()));
                Err(sort_out(error))
            }
        }
    }
}

/// Why a path was not copied.
enum Failure {
    /// Another cache, or a build, may still give it.
    Path(String),
    /// The store itself does not work: the disk is full, somebody took it away.
    Everything(BuildError),
}

/// Tells what is wrong with a cache from what is wrong with the store.
fn sort_out(error: CacheError) -> BuildError {
    use fodder_store::StoreError as E;
    let CacheError::Store(error) = error else { return BuildError::Cache(error) };
    let is_of_the_archive = matches!(
        error,
        E::Unpack { .. }
            | E::ImportMismatch { .. }
            | E::NotContentAddressed { .. }
            | E::NotADerivation { .. }
            | E::NotAFile { .. }
            | E::InvalidReference { .. }
    );
    if is_of_the_archive { BuildError::Cache(CacheError::Store(error)) } else { BuildError::Store(error) }
}

/// Notes a failure, of a path and of everything that waits for it.
fn fail(state: &mut State, path: StorePath, reason: String) {
    let mut failed = vec![(path, reason)];
    while let Some((path, reason)) = failed.pop() {
        let dependents: Vec<StorePath> = state
            .waiting
            .iter()
            .filter(|(_, (_, waits_for))| waits_for.contains(&path))
            .map(|(dependent, _)| dependent.clone())
            .collect();
        for dependent in dependents {
            state.waiting.remove(&dependent);
            failed.push((dependent, format!("it refers to '{path}': {reason}")));
        }
        state.fetched.failed.insert(path, reason);
    }
}

/// Reports what passes.
struct Counted<'a, R> {
    archive: R,
    unreported: u64,
    reported: &'a std::cell::Cell<u64>,
    messages: &'a mpsc::Sender<Message>,
}

impl<R> Counted<'_, R> {
    fn report(&mut self) {
        let count = std::mem::take(&mut self.unreported);
        self.reported.set(self.reported.get() + count);
        let _ = self.messages.send(Message::Bytes(count));
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.archive.read(buffer)?;
        self.unreported += count as u64;
        if self.unreported >= REPORT_SIZE {
            self.report();
        }
        Ok(count)
    }
}

impl<R> Drop for Counted<'_, R> {
    fn drop(&mut self) {
        self.report();
    }
}
