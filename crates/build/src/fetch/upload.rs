//! Writing a closure to a binary cache: archives are compressed several at a time, and offered in order, references first.

use super::FetchEvent;
use crate::error::BuildError;
use fodder_model::store_path::StorePath;
use fodder_store::{CacheError, CacheWriter, PathInfo, Store, Written, references_first};
use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

/// What the threads say.
enum Message {
    Begun(usize),
    Ended(usize, Result<Option<Written>, CacheError>),
}

/// Copies paths of a store to a cache, which is to have everything that they refer to. Returns how many were new to it.
pub fn upload(
    store: &Store,
    closure: &BTreeMap<StorePath, PathInfo>,
    cache: &CacheWriter,
    observe: &mut dyn FnMut(FetchEvent),
) -> Result<usize, BuildError> {
    let order: Vec<&PathInfo> = references_first(closure).iter().filter_map(|path| closure.get(path)).collect();
    let total_bytes = order.iter().map(|info| info.nar_size).fold(0, u64::saturating_add);
    let paths = order.len();
    let next = AtomicUsize::new(0);
    let (sender, messages) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(paths.max(1)) {
            let (sender, next, order) = (sender.clone(), &next, &order);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(info) = order.get(number) else { return };
                    let begun = || drop(sender.send(Message::Begun(number)));
                    let written = cache.write(store, info, begun);
                    let is_bad = written.is_err();
                    // Nobody listens after an error.
                    if sender.send(Message::Ended(number, written)).is_err() || is_bad {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting: BTreeMap<usize, Option<Written>> = BTreeMap::new();
        let (mut published, mut copied, mut done, mut bytes) = (0, 0, 0, 0u64);
        for message in messages {
            let (number, written) = match message {
                Message::Begun(number) => {
                    let (path, url) = (order[number].path.clone(), cache.url().to_owned());
                    observe(FetchEvent::Writing { path, url });
                    continue;
                }
                Message::Ended(number, written) => (number, written),
            };
            let written = written.inspect_err(|_| next.store(paths, Ordering::Relaxed))?;
            done += 1;
            bytes = bytes.saturating_add(order[number].nar_size);
            waiting.insert(number, written);
            while let Some(ready) = waiting.remove(&published) {
                if let Some(written) = ready {
                    cache.publish(&written)?;
                    copied += 1;
                }
                published += 1;
            }
            observe(FetchEvent::Progress { done, paths, bytes, total_bytes });
        }
        Ok(copied)
    })
}
