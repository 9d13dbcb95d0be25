//! `fodder hash` and `fodder refs`: looking at files without building.

use crate::{
    arguments::{BaseArgument, HashArguments, MethodArgument, RefsArguments},
    build::store_root,
    diagnose::Failure,
    words::{harmless, print_json, print_line},
};
use fodder_build::{
    BuildError,
    inspect::{self, Budget, Instructions},
    locate::{self, ReferenceHit, Wanted},
};
use fodder_model::{content_address::ContentMethod, scan::Candidates, store_path::StorePath};
use std::{os::fd::AsFd, path::Path};

pub(crate) fn hash(arguments: &HashArguments) -> Result<u8, Failure> {
    let HashArguments { path, mode, algo, base, json } = arguments;
    let method = match mode {
        MethodArgument::Nar => ContentMethod::Nar,
        MethodArgument::Flat => ContentMethod::Flat,
        MethodArgument::Text => ContentMethod::Text,
        MethodArgument::Git => ContentMethod::Git,
    };
    if !method.allows(*algo) {
        let text = format!("error: method '{}' cannot be used with '{algo}'", method.name());
        return Err(Failure::new(text, 2).with_hint("text goes with sha256, git with sha1 or sha256"));
    }
    // Without a trailing slash or dots, behind which the kernel would follow a link.
    let absolute =
        std::path::absolute(path).map_err(|source| Failure::from(BuildError::Read { path: path.clone(), source }))?;
    let (parent, name) = match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => (parent, name),
        _ => return Err(Failure::new(format!("error: '{}' cannot be hashed", path.display()), 2)),
    };
    let directory = std::fs::File::open(parent)
        .map_err(|source| Failure::from(BuildError::Read { path: parent.to_owned(), source }))?;
    let nothing = Candidates::new([]);
    let instructions = Instructions {
        candidates: &nothing,
        content: Some((method, *algo)),
        canonicalise: false,
        builder: None,
        budget: Budget::default(),
    };
    let found = inspect::inspect(directory.as_fd(), name, path, &instructions, &mut inspect::Links::default())
        .map_err(BuildError::from)?;
    let Some(content) = found.content else {
        let text = format!("error: '{}' is not a regular file that nobody may execute", path.display());
        return Err(Failure::new(text, 1).with_hint("hash directories and programs with --mode nar"));
    };
    let hash = content.hash;
    if *json {
        print_json(
            &serde_json::json!({
                "mode": method.name(), "algorithm": hash.algorithm().name(), "sri": hash.to_sri(), "base16": hash.to_base16(),
                "nix32": hash.to_nix32(), "base64": hash.to_base64(), "narHash": found.nar_hash.to_sri(), "narSize": found.nar_size,
            })
            .to_string(),
        );
    } else {
        print_line(&match base {
            BaseArgument::Sri => hash.to_sri(),
            BaseArgument::Base16 => hash.to_base16(),
            BaseArgument::Nix32 => hash.to_nix32(),
            BaseArgument::Base64 => hash.to_base64(),
        });
    }
    Ok(0)
}

/// One place, in the form that scripts may rely on.
pub(crate) fn hit_line(hit: &ReferenceHit) -> String {
    let ReferenceHit { output: _, file, offset, path, cause, context: _ } = hit;
    format!("{}:{offset}  {path}  {}", harmless(&file[..]), cause.words())
}

pub(crate) fn refs(arguments: &RefsArguments) -> Result<u8, Failure> {
    let RefsArguments { path, to, store, json } = arguments;
    let top = match path.to_str().and_then(|text| StorePath::from_full_path(text).ok()) {
        Some(store_path) if !path.exists() => {
            store_root(store.as_deref())?.join("nix/store").join(store_path.base_name())
        }
        _ => path.clone(),
    };
    let candidates = Candidates::new(to);
    let wanted = if to.is_empty() { Wanted::Anything } else { Wanted::Paths(&candidates) };
    // As they are found, also within the array: there may be more than memory holds.
    let mut opening = "[";
    let mut failure = None;
    locate::locate(Path::new(&top), wanted, &mut |mut hit| {
        if hit.file.is_empty() {
            hit.file = top.file_name().unwrap_or_default().as_encoded_bytes().into();
        }
        if !*json {
            return print_line(&hit_line(&hit));
        }
        match serde_json::to_string(&hit) {
            Ok(text) => print_json(&format!("{}{text}", std::mem::replace(&mut opening, ","))),
            Err(error) => failure = Some(error),
        }
    })?;
    if let Some(error) = failure {
        return Err(Failure::output(&error.into()));
    }
    if *json {
        print_line(if opening == "[" { "[]" } else { "]" });
    }
    Ok(0)
}
