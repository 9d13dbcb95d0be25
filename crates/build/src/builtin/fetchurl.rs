//! `builtin:fetchurl`: downloads one file, or unpacks one NAR (reference, section 6.1).

use super::{Attributes, failed, say};
use fodder_model::{
    environment::BUILD_DIRECTORY,
    netrc,
    plan::{MIRRORS_VARIABLE, NETRC_FILE},
    short_form::CERTIFICATE_BUNDLE,
};
use fodder_store::{Compression, Http, HttpError, HttpSettings, Proxies};
use std::{
    fs::{File, OpenOptions, Permissions},
    io::{BufReader, Read, Seek},
    os::{
        fd::AsFd,
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::Path,
    time::Duration,
};

/// How often a download is tried; Nix's default.
const ATTEMPTS: u32 = 5;

pub(super) fn run(attributes: &Attributes<'_>) -> Result<(), String> {
    let (url, out) = (attributes.required("url")?.to_string(), attributes.required("out")?.as_path());
    let unpacks = attributes.is_set("unpack");
    let archive = Path::new(BUILD_DIRECTORY).join("archive.nar");
    let destination = if unpacks { &archive } else { out };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(destination)
        .map_err(failed("create", destination))?;
    fetch(attributes, &url, &mut file)?;
    if unpacks {
        unpack(&archive, url.ends_with(".xz"), out)?;
    }
    if attributes.is_set("executable") {
        std::fs::set_permissions(out, Permissions::from_mode(0o755)).map_err(failed("make executable", out))?;
    }
    Ok(())
}

/// Mirrors that know files by their hash come first; what goes wrong with one is no reason to stop.
fn fetch(attributes: &Attributes<'_>, url: &str, file: &mut File) -> Result<(), String> {
    let certificates = std::fs::read(CERTIFICATE_BUNDLE).map_err(failed("read", Path::new(CERTIFICATE_BUNDLE)))?;
    let either = |lower: &str| {
        let found = attributes.text(lower);
        if found.is_empty() { attributes.text(&lower.to_uppercase()) } else { found }
    };
    let proxies = Proxies {
        http: either("http_proxy"),
        https: either("https_proxy"),
        all: either("all_proxy"),
        except: either("no_proxy"),
    };
    let passwords = std::fs::read_to_string(Path::new(BUILD_DIRECTORY).join(NETRC_FILE)).unwrap_or_default();
    let settings = HttpSettings { certificates, attempts: ATTEMPTS, proxies };
    let http = Http::new(&settings).map_err(|error| error.to_string())?;
    let mut get = |url: &str| {
        say(&format!("downloading '{url}'"));
        let url = netrc::with_password(url, &passwords);
        // A mirror may have left the beginning of something else.
        file.set_len(0).and_then(|()| file.rewind()).map_err(HttpError::Write)?;
        let on_retry =
            |error: &HttpError, wait: Duration| say(&format!("warning: {error}; retrying in {} ms", wait.as_millis()));
        http.download(&url, file, Box::new(on_retry))
    };
    for mirror in attributes.text(MIRRORS_VARIABLE).split_ascii_whitespace() {
        match get(mirror) {
            Ok(_) => return Ok(()),
            Err(error) => say(&format!("note: {}", crate::chain(&error))),
        }
    }
    get(url).map(drop).map_err(|error| crate::chain(&error))
}

fn unpack(archive: &Path, is_compressed: bool, out: &Path) -> Result<(), String> {
    let file = BufReader::new(File::open(archive).map_err(failed("open", archive))?);
    let compression = if is_compressed { Compression::Xz } else { Compression::None };
    let mut input = compression.cautious_reader(file).map_err(failed("decompress", archive))?;
    let (Some(parent), Some(name)) = (out.parent(), out.file_name()) else {
        return Err(format!("'{}' is no place for an output", out.display()));
    };
    let directory = File::open(parent).map_err(failed("open", parent))?;
    fodder_store::restore(&mut input, directory.as_fd(), name).map_err(|error| crate::chain(&error))?;
    let mut rest = [0];
    match input.read(&mut rest).map_err(failed("decompress", archive))? {
        0 => Ok(()),
        _ => Err("the archive goes on after its end".to_owned()),
    }
}
