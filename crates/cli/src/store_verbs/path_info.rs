//! `fodder store path-info`

use super::{arguments::PathInfoArguments, names::store_paths};
use crate::{
    diagnose::Failure,
    words::{print_json, print_line},
};
use fodder_model::store_path::{STORE_DIRECTORY, StorePath};
use fodder_store::{PathInfo, Store, StoreError, references_first};
use serde_json::{Map, Value, json};
use std::fmt::Write;

pub(crate) fn path_info(store: &Store, arguments: &PathInfoArguments) -> Result<u8, Failure> {
    let PathInfoArguments { paths, all, recursive, size, closure_size, human_readable, sigs, json, json_format: _ } =
        arguments;
    let mut paths = match all {
        true => store.all_paths()?.into_iter().collect(),
        false => store_paths(store, paths)?,
    };
    if *recursive {
        paths = references_first(&store.closure(&paths)?);
    }
    if *json {
        let mut object = Map::new();
        for path in &paths {
            let entry = match store.query(path)? {
                None => Value::Null,
                Some(info) => entry(store, info, *closure_size)?,
            };
            object.insert(path.to_string(), entry);
        }
        print_json(&Value::Object(object).to_string());
        return Ok(0);
    }
    let width = paths.iter().map(|path| path.to_string().len()).max().unwrap_or_default();
    let number = |bytes: u64| if *human_readable { aligned_size(bytes) } else { format!("{bytes:11}") };
    for path in paths {
        let info = store.query(&path)?.ok_or_else(|| StoreError::NotValid { path: path.clone() })?;
        let mut line = path.to_string();
        if *size || *closure_size || *sigs {
            line = format!("{line:width$}");
        }
        // Writing to a string cannot fail.
        if *size {
            let _ = write!(line, "\t{}", number(info.nar_size));
        }
        if *closure_size {
            let _ = write!(line, "\t{}", number(closure_bytes(store, &path)?));
        }
        if *sigs {
            let built_here = info.ultimate.then(|| "ultimate".to_owned());
            let addressed = info.content_address.map(|address| format!("ca:{address}"));
            let words: Vec<String> = built_here.into_iter().chain(addressed).chain(info.signatures).collect();
            let _ = write!(line, "\t{}", words.join(" "));
        }
        print_line(&line);
    }
    Ok(0)
}

/// Version 1 of what Nix calls path info JSON.
fn entry(store: &Store, info: PathInfo, with_closure_size: bool) -> Result<Value, StoreError> {
    let PathInfo {
        path,
        nar_hash,
        nar_size,
        references,
        deriver,
        registration_time,
        ultimate,
        signatures,
        content_address,
    } = info;
    let mut entry = json!({
        "ca": content_address, "deriver": deriver, "narHash": nar_hash.to_sri(), "narSize": nar_size,
        "references": references, "registrationTime": registration_time, "signatures": signatures,
        "storeDir": STORE_DIRECTORY, "ultimate": ultimate, "version": 1,
    });
    if with_closure_size {
        entry["closureSize"] = closure_bytes(store, &path)?.into();
    }
    Ok(entry)
}

fn closure_bytes(store: &Store, path: &StorePath) -> Result<u64, StoreError> {
    Ok(store.closure([path])?.values().map(|info| info.nar_size).sum())
}

/// As Nix prints sizes in columns: at least KiB, one digit after the point.
fn aligned_size(bytes: u64) -> String {
    let mut value = bytes as f64 / 1024.0;
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:6.1} {unit}")
}
