//! The NAR reader.
#![no_main]

use fodder_model::nar::{NarEvent, Reader, Writer};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // There is one archive of a tree: what is accepted is what would be written.
    let mut reader = Reader::new(data);
    let mut written = Vec::new();
    let mut writer = Writer::new(&mut written);
    let mut piece = [0; 100];
    loop {
        match reader.next_event() {
            Err(_) => return,
            Ok(None) => break,
            Ok(Some(NarEvent::Directory)) => writer.directory().expect("a directory"),
            Ok(Some(NarEvent::Entry(name))) => writer.entry(&name).expect("an entry"),
            Ok(Some(NarEvent::EndDirectory)) => writer.end_directory().expect("an end"),
            Ok(Some(NarEvent::Symlink(target))) => writer.symlink(&target).expect("a link"),
            Ok(Some(NarEvent::File { executable, size })) => {
                writer.file(executable, size).expect("a file");
                loop {
                    match reader.contents(&mut piece) {
                        Err(_) => return,
                        Ok(0) => break,
                        Ok(count) => writer.contents(&piece[..count]).expect("contents"),
                    }
                }
            }
        }
    }
    if reader.finish().is_ok() {
        writer.finish().expect("the end");
        assert_eq!(written, data);
    }
});
