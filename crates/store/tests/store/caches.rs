//! Binary caches in directories: what is believed of one, what is taken from it, and what is left alone in it.

use crate::{
    downloads,
    lab::{Lab, NOW, chmod, mode, some_path},
};
use fodder_model::{narinfo::NarInfo, store_path::StorePath};
use fodder_store::{BinaryCache, CacheError, CacheLocation, CacheWriter, PathInfo, Store, StoreError};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

struct Cache {
    lab: Lab,
    store: Store,
    info: PathInfo,
}

impl Cache {
    /// With one path in it, written by us.
    fn new() -> Self {
        let lab = Lab::new();
        let store = lab.store();
        let info = store.add_source("added", &lab.file("source", "contents"), NOW).unwrap();
        let cache = Cache { lab, store, info };
        assert!(cache.add());
        cache
    }

    fn directory(&self) -> PathBuf {
        self.lab.path().join("cache")
    }

    fn location(&self) -> CacheLocation {
        CacheLocation::parse(&format!("file://{}?compression=none", self.directory().display())).unwrap()
    }

    fn writer(&self) -> CacheWriter {
        CacheWriter::open(self.location()).unwrap()
    }

    /// Whether there was anything to do.
    fn add(&self) -> bool {
        let writer = self.writer();
        let written = writer.write(&self.store, &self.info, || {}).unwrap();
        written.iter().for_each(|written| writer.publish(written).unwrap());
        written.is_some()
    }

    fn open(&self) -> Result<BinaryCache, CacheError> {
        BinaryCache::open(self.location(), &downloads::settings(1), downloads::silent())
    }

    fn lookup(&self, path: &StorePath) -> Result<Option<NarInfo>, CacheError> {
        let cache = self.open()?;
        cache.connect()?.lookup(path, downloads::silent())
    }

    fn narinfo(&self, path: &StorePath) -> PathBuf {
        self.directory().join(format!("{}.narinfo", path.hash_part()))
    }

    fn edit(&self, edit: impl Fn(String) -> String) {
        let file = self.narinfo(&self.info.path);
        let text = edit(fs::read_to_string(&file).unwrap());
        fs::write(file, text).unwrap();
    }

    fn archive(&self) -> PathBuf {
        let info = self.lookup(&self.info.path).unwrap().unwrap();
        self.directory().join(info.url)
    }
}

fn replace(file: &Path, contents: &str) {
    fs::remove_file(file).unwrap();
    fs::write(file, contents).unwrap();
}

fn pipe(path: &Path) {
    let _ = fs::remove_file(path);
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
}

/// Attack: PARSE-8. Layer: a cache of another store directory is neither read nor written.
#[test]
fn a_cache_of_another_store_is_none_of_ours() {
    let cache = Cache::new();
    replace(&cache.directory().join("nix-cache-info"), "StoreDir: /gnu/store\n");
    assert!(matches!(cache.open(), Err(CacheError::OtherStore { found, .. }) if found == "/gnu/store"));
    let opened = CacheWriter::open(cache.location());
    assert!(matches!(opened, Err(CacheError::OtherStore { found, .. }) if found == "/gnu/store"));
}

/// Attack: PARSE-14. Layer: a signature, the content address, or the person's word; nothing else makes a path believed.
#[test]
fn a_path_is_believed_for_a_reason() {
    let cache = Cache::new();
    let info = cache.lookup(&cache.info.path).unwrap().unwrap();
    let opened = cache.open().unwrap();
    let accepted = opened.accept(&info, &[], NOW).unwrap();
    assert_eq!(accepted.content_address, cache.info.content_address, "the path follows from it");
    assert!(!accepted.ultimate && accepted.content_address.is_some());
    // One that the path does not follow from vouches for nothing, and is not written down.
    let other = NarInfo { path: some_path("other"), ..info };
    assert!(matches!(opened.accept(&other, &[], NOW), Err(CacheError::Untrusted { is_signed: false, .. })));
    let signed = NarInfo { signatures: ["cache.example-1:AAAA".to_owned()].into(), ..other.clone() };
    assert!(matches!(opened.accept(&signed, &[], NOW), Err(CacheError::Untrusted { is_signed: true, .. })));
    let trusted = BinaryCache::open(cache.location().trusted(), &downloads::settings(1), downloads::silent()).unwrap();
    assert_eq!(trusted.accept(&other, &[], NOW).unwrap().content_address, None);
}

/// Attack: PARSE-8. Layer: an answer is about what was asked, and its archive is in the cache.
#[test]
fn a_narinfo_is_about_its_path_and_leads_nowhere_else() {
    let cache = Cache::new();
    let other = some_path("other");
    fs::write(cache.narinfo(&other), fs::read(cache.narinfo(&cache.info.path)).unwrap()).unwrap();
    assert!(matches!(cache.lookup(&other), Err(CacheError::OtherPath { asked, .. }) if asked == other));
    let outside = cache.lab.file("outside.nar", "secret").display().to_string();
    for place in ["../outside.nar", "nar/../../outside.nar", &outside] {
        cache.edit(|text| {
            let lines =
                text.lines().map(|line| if line.starts_with("URL: ") { format!("URL: {place}") } else { line.into() });
            lines.map(|line| line + "\n").collect()
        });
        let info = cache.lookup(&cache.info.path).unwrap().unwrap();
        let opened = cache.open().unwrap();
        let connection = opened.connect().unwrap();
        let archive = connection.archive(&info, downloads::silent()).map(drop);
        assert!(matches!(archive, Err(CacheError::Outside { file, .. }) if file == place), "{place}");
    }
}

/// Attack: PARSE-8, RES-5. Layer: files of a cache are regular files, and small where they are read whole.
#[test]
fn what_is_no_small_file_is_not_read_as_one() {
    let cache = Cache::new();
    let file = cache.narinfo(&cache.info.path);
    let words = || fodder_store::chain(&cache.lookup(&cache.info.path).unwrap_err());
    fs::File::options().write(true).open(&file).unwrap().set_len((4 << 20) + 1).unwrap();
    assert!(words().contains("it is too large"), "{}", words());
    // Nobody writes to this pipe, and nobody waits for that.
    pipe(&file);
    assert!(words().contains("it is not a regular file"), "{}", words());
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(words().contains("it is not a regular file"), "{}", words());
    // The same over the network.
    let text = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", "x: y\n".repeat(1 << 20));
    let (url, thread) = downloads::server(vec![text]);
    let location = CacheLocation::parse(url.trim_end_matches("/file")).unwrap();
    let error = BinaryCache::open(location, &downloads::settings(1), downloads::silent()).unwrap_err();
    assert!(fodder_store::chain(&error).contains("is larger than 4194304 bytes"), "{error}");
    thread.join().unwrap();
}

/// Attack: damage that spreads. Layer: an object that is not what was registered is not given away.
#[test]
fn a_changed_object_is_neither_offered_nor_exported() {
    let cache = Cache::new();
    fs::rename(cache.directory(), cache.lab.path().join("before")).unwrap();
    let object = cache.store.real_path(&cache.info.path);
    chmod(&object, 0o644);
    fs::write(&object, "CONTENTS").unwrap();
    chmod(&object, 0o444);
    let written = cache.writer().write(&cache.store, &cache.info, || {});
    assert!(matches!(written, Err(CacheError::Store(StoreError::ImportMismatch { what: "hash", .. }))));
    assert!(crate::lab::names(&cache.directory().join("nar")).is_empty());
    let mut stream = Vec::new();
    let exported = cache.store.export(std::slice::from_ref(&cache.info.path), &mut stream);
    assert!(matches!(exported, Err(StoreError::HashChanged { .. })));
    assert!(cache.store.import(&*stream, NOW).is_err(), "what was written is no whole export");
}

#[test]
fn what_a_cache_has_is_written_again_where_it_is_not_what_it_says() {
    let cache = Cache::new();
    assert!(!cache.add(), "it is there already");
    fs::remove_file(cache.archive()).unwrap();
    assert!(cache.add(), "a narinfo without an archive is none");
    // Of another path with the same hash, which is none of Nix's.
    cache.edit(|text| text.replace("-added\n", "-other\n"));
    assert!(cache.add());
    assert_eq!(cache.lookup(&cache.info.path).unwrap().unwrap().path, cache.info.path);
    for file in [cache.archive(), cache.narinfo(&cache.info.path), cache.directory().join("nix-cache-info")] {
        assert_eq!(mode(&file), 0o644, "{}", file.display());
    }
}

/// Attack: files that others are writing. Layer: locks, and what is no file is nobody's unfinished one.
#[test]
fn only_the_unfinished_files_of_the_dead_are_removed() {
    let cache = Cache::new();
    let [alive, dead, link] =
        ["nar/.new-alive", "nar/.new-dead", "nar/.new-link"].map(|name| cache.directory().join(name));
    let file = fs::File::create(&alive).unwrap();
    file.lock().unwrap();
    fs::write(&dead, "").unwrap();
    symlink(cache.lab.file("outside", ""), &link).unwrap();
    cache.writer();
    assert!(alive.exists() && !dead.exists() && link.symlink_metadata().is_ok());
    drop(file);
    cache.writer();
    assert!(!alive.exists());
}
