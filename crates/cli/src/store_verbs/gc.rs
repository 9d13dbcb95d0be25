//! `fodder store gc`

use super::{arguments::GcArguments, mebibytes, names::store_paths, roots::print_roots};
use crate::{
    diagnose::Failure,
    words::{harmless, print_line, print_note},
};
use fodder_model::store_path::STORE_DIRECTORY;
use fodder_store::{CollectionEvent, Garbage, KeepRules, Store};
use std::ffi::OsStr;

pub(crate) fn gc(store: &Store, arguments: &GcArguments) -> Result<u8, Failure> {
    let GcArguments {
        print_roots: roots_only,
        print_live,
        print_dead,
        dry_run,
        paths,
        delete,
        ignore_liveness,
        max_freed,
        keep_outputs,
        no_keep_derivations,
    } = arguments;
    let keep = KeepRules { derivations: !no_keep_derivations, outputs: *keep_outputs };
    if *roots_only {
        return print_roots(store);
    }
    if *print_live || *print_dead || *dry_run {
        store.prune_out_links()?;
        let survey = store.survey(keep)?;
        if *print_live {
            survey.live.iter().for_each(|path| print_line(&path.to_string()));
            return Ok(0);
        }
        survey.dead.iter().for_each(|name| print_line(&shown(name)));
        if *dry_run {
            let (count, size) = (survey.dead.len(), mebibytes(survey.dead_bytes));
            print_note(&format!("{count} store paths would be deleted, up to {size} freed"));
        }
        return Ok(0);
    }
    let garbage = match delete {
        false => Garbage::Everything { keep, max_freed_bytes: *max_freed },
        true => Garbage::Paths {
            paths: store_paths(store, paths)?.into_iter().collect(),
            ignore_liveness: *ignore_liveness,
        },
    };
    let collected = store.collect_garbage(&garbage, &mut |event| match event {
        CollectionEvent::Waiting => print_note("waiting for the big garbage collector lock..."),
        CollectionEvent::FindingRoots => print_note("finding garbage collector roots..."),
        CollectionEvent::Deleting(name) => print_note(&format!("deleting '{}'", shown(&name))),
        CollectionEvent::DeletingLinks => print_note("deleting unused links..."),
    })?;
    print_note(&format!("note: currently hard linking saves {}", mebibytes(collected.shared_bytes)));
    print_line(&format!("{} store paths deleted, {} freed", collected.count, mebibytes(collected.freed_bytes)));
    Ok(0)
}

fn shown(name: &OsStr) -> String {
    format!("{STORE_DIRECTORY}/{}", harmless(name.as_encoded_bytes()))
}
