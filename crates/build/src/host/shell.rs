//! Finding a static shell to be `/bin/sh` in a root that has no libraries.

use fodder_model::bytes::ByteString;
use std::{fs::File, io::Read, path::Path};

/// Where distributions put static shells. A busybox is a shell when it is called `sh`.
const CANDIDATES: [&str; 8] = [
    "/bin/busybox",
    "/usr/bin/busybox",
    "/bin/busybox.static",
    "/usr/lib/busybox/busybox-static",
    "/bin/bash-static",
    "/usr/bin/bash-static",
    "/bin/ash.static",
    "/usr/bin/dash-static",
];

/// The first static shell, symbolic links followed.
pub(super) fn find() -> Option<ByteString> {
    CANDIDATES
        .iter()
        .filter_map(|path| std::fs::canonicalize(path).ok())
        .find(|path| is_static_elf(path))
        .map(|path| ByteString::from(path.as_path()))
}

/// Whether a file is an ELF program without a program interpreter, see elf(5).
fn is_static_elf(path: &Path) -> bool {
    const INTERPRETER: u32 = 3;
    let mut head = vec![0; 4096];
    let Ok(count) = File::open(path).and_then(|mut file| file.read(&mut head)) else {
        return false;
    };
    head.truncate(count);
    let number = |offset: usize, length: usize| -> Option<u64> {
        let bytes = head.get(offset..offset + length)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let is_little_endian_64 = head.starts_with(b"\x7fELF\x02\x01");
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else {
        return false;
    };
    let kinds = (0..count).map(|index| number((table + index * size) as usize, 4));
    is_little_endian_64
        && kinds.clone().all(|kind| kind.is_some())
        && kinds.flatten().all(|kind| kind != u64::from(INTERPRETER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_not_taken_for_a_static_one() {
        assert!(!is_static_elf(Path::new("/bin/ls")));
        assert!(!is_static_elf(Path::new("/etc/passwd")));
        assert!(!is_static_elf(Path::new("/nonexistent")));
        let busybox = Path::new("/bin/busybox");
        assert!(busybox.exists(), "this test needs busybox-static: apt-get install busybox-static");
        assert!(is_static_elf(busybox));
    }
}
