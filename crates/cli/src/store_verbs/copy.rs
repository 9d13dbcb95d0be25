//! `fodder store copy`

use super::{add::seconds_since_1970, arguments::CopyArguments, names::store_paths, open_to_read};
use crate::{
    diagnose::Failure,
    progress::{Progress, Ticker},
    words::{is_terminal, print_note},
};
use fodder_build::{BuildError, FetchEvent, Fetcher, Substitution, upload};
use fodder_model::store_path::StorePath;
use fodder_store::{CacheLocation, CacheWriter, PathInfo, Store, Unpacked, references_first};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

pub(crate) fn copy(root: &Path, arguments: &CopyArguments) -> Result<u8, Failure> {
    let CopyArguments { paths, all, to, from, .. } = arguments;
    match (to, from) {
        (Some(to), _) => {
            let store = open_to_read(root)?;
            let wanted = match all {
                true => store.all_paths()?,
                false => store_paths(&store, paths)?.into_iter().collect(),
            };
            let closure = store.closure(&wanted)?;
            match is_address(to) {
                true => to_cache(&store, &closure, to),
                false => between(
                    &store,
                    &closure,
                    &super::open_or_create(&super::store_root(Some(Path::new(to)))?)?,
                    "to",
                    to,
                ),
            }
        }
        (None, Some(from)) if is_address(from) => from_cache(&super::open_or_create(root)?, from, arguments),
        (None, Some(from)) => {
            let other = open_to_read(Path::new(from))?;
            let wanted: BTreeSet<StorePath> = store_paths(&other, paths)?.into_iter().collect();
            let closure = other.closure(&wanted)?;
            between(&other, &closure, &super::open_or_create(root)?, "from", from)
        }
        (None, None) => Err(Failure::new("error: neither --to nor --from was given", 2)),
    }
}

fn is_address(text: &str) -> bool {
    text.contains("://")
}

fn location(url: &str) -> Result<CacheLocation, Failure> {
    CacheLocation::parse(url).map_err(|error| Failure::new(format!("error: {error}"), 2))
}

fn to_cache(store: &Store, closure: &BTreeMap<StorePath, PathInfo>, url: &str) -> Result<u8, Failure> {
    let cache = CacheWriter::open(location(url)?).map_err(BuildError::from)?;
    let progress = Ticker::start(Progress::new(is_terminal(), false));
    let copied = upload(store, closure, &cache, &mut |event| progress.fetch(&event));
    progress.finish();
    print_note(&format!("copied {} to '{}'", paths(copied?), cache.url()));
    Ok(0)
}

fn paths(count: usize) -> String {
    if count == 1 { "1 path".to_owned() } else { format!("{count} paths") }
}

/// What comes from another store of ours is compared with its hash and needs no signature.
fn between(
    source: &Store,
    closure: &BTreeMap<StorePath, PathInfo>,
    destination: &Store,
    preposition: &str,
    shown: &str,
) -> Result<u8, Failure> {
    let progress = Ticker::start(Progress::new(is_terminal(), false));
    let total_bytes = closure.values().map(|info| info.nar_size).fold(0, u64::saturating_add);
    let mut bytes = 0u64;
    let mut copied = 0;
    let order = references_first(closure);
    for (number, path) in order.iter().enumerate() {
        let Some(info) = closure.get(path) else { continue };
        destination.add_temporary_roots([path])?;
        if !destination.is_valid(path)? {
            let unpacked = Unpacked::copy(destination, &source.real_path(path))?;
            // It was not built there.
            let info = PathInfo { ultimate: false, registration_time: seconds_since_1970(), ..info.clone() };
            let (_, is_new) = destination.add_unpacked(unpacked, &info)?;
            copied += usize::from(is_new);
        }
        bytes = bytes.saturating_add(info.nar_size);
        progress.fetch(&FetchEvent::Progress { done: number + 1, paths: order.len(), bytes, total_bytes });
    }
    progress.finish();
    print_note(&format!("copied {} {preposition} '{shown}'", paths(copied)));
    Ok(0)
}

fn from_cache(store: &Store, url: &str, arguments: &CopyArguments) -> Result<u8, Failure> {
    let CopyArguments { paths, all: _, to: _, from: _, trust, no_check_sigs, ca_file } = arguments;
    let location = location(url)?;
    let location = if *no_check_sigs { location.trusted() } else { location };
    let wanted: BTreeSet<StorePath> = store_paths(store, paths)?.into_iter().collect();
    let substitution = Substitution { caches: vec![location], keys: trust.keys() };
    let progress = Ticker::start(Progress::new(is_terminal(), false));
    let mut observe = |event: FetchEvent| progress.fetch(&event);
    let mut run = || {
        let fetcher =
            Fetcher::open(store, &substitution, false, ca_file.as_deref(), seconds_since_1970(), &mut observe)?;
        if fetcher.is_empty() {
            return Ok(None);
        }
        let mut plan = fetcher.plan(&wanted, &mut observe)?;
        plan.restrict(&wanted);
        Ok::<_, BuildError>(Some(fetcher.fetch(plan, &mut observe)?))
    };
    let fetched = run();
    progress.finish();
    let Some(fetched) = fetched? else {
        return Err(Failure::new(format!("error: the binary cache '{url}' cannot be used"), 1));
    };
    let missing: Vec<&StorePath> = wanted.iter().filter(|path| fetched.failed.contains_key(*path)).collect();
    for path in &missing {
        let reason = fetched.failed.get(*path).map_or("", String::as_str);
        let reason: Vec<String> = reason.lines().map(|line| crate::words::harmless(line.as_bytes())).collect();
        print_note(&format!("error: cannot copy '{path}': {}", reason.join("\n       ")));
    }
    print_note(&format!("copied {} from '{url}'", self::paths(fetched.new.len())));
    Ok(u8::from(!missing.is_empty()))
}
