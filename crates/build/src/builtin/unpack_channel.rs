//! `builtin:unpack-channel`: unpacks an archive with one thing at its top, and calls that by the channel's name (reference, 6.2).

use super::{Attributes, failed};
use fodder_store::Compression;
use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::fd::AsFd,
    path::Path,
};

pub(super) fn run(attributes: &Attributes<'_>) -> Result<(), String> {
    let out = attributes.required("out")?.as_path();
    let name = attributes.required("channelName")?;
    let source = attributes.required("src")?.as_path();
    if name.contains(&b'/') {
        return Err(format!("channelName is not allowed to contain filesystem separators, got {name}"));
    }
    if name.is_empty() || *name == *"." || *name == *".." {
        return Err(format!("channelName '{name}' names no directory entry"));
    }
    std::fs::create_dir_all(out).map_err(failed("create", out))?;
    unpack(source, out)?;
    let mut entries = std::fs::read_dir(out).map_err(failed("list", out))?;
    let Some(first) = entries.next() else {
        return Err(format!("channel tarball '{}' is empty", source.display()));
    };
    let first = first.map_err(failed("list", out))?.path();
    if entries.next().is_some() {
        return Err(format!("channel tarball '{}' contains more than one file", source.display()));
    }
    let target = out.join(name.as_path());
    std::fs::rename(&first, &target).map_err(failed("rename", &first))
}

/// The archive is recognised by what is in it, whatever its name.
fn unpack(source: &Path, out: &Path) -> Result<(), String> {
    let mut input = BufReader::new(File::open(source).map_err(failed("open", source))?);
    let compression = Compression::recognise(input.fill_buf().map_err(failed("read", source))?);
    let input = compression.cautious_reader(input).map_err(failed("decompress", source))?;
    let directory = File::open(out).map_err(failed("open", out))?;
    fodder_store::unpack_tar(input, directory.as_fd(), out)
        .map_err(|error| format!("cannot unpack '{}': {}", source.display(), crate::chain(&error)))
}
