//! Names and numbers of system calls, from the table in `calls.tsv`, which says how it was made.

use std::sync::LazyLock;

const TABLE: &str = include_str!("calls.tsv");

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    X86_64,
    I386,
    Aarch64,
    Arm,
}

type Row = [Option<u32>; 4];

/// By name, in the table's order, which is theirs.
static CALLS: LazyLock<Vec<(&str, Row)>> = LazyLock::new(|| {
    let rows = TABLE.lines().filter(|line| !line.starts_with('#')).skip(1);
    rows.filter_map(|line| {
        let mut cells = line.split('\t');
        let name = cells.next()?;
        let mut row = [None; 4];
        for (place, cell) in row.iter_mut().zip(cells) {
            *place = cell.parse().ok();
        }
        Some((name, row))
    })
    .collect()
});

/// Whether any architecture has a call of this name.
pub(super) fn is_known(name: &str) -> bool {
    row(name).is_some()
}

fn row(name: &str) -> Option<&'static Row> {
    let place = CALLS.binary_search_by_key(&name, |(known, _)| *known).ok()?;
    CALLS.get(place).map(|(_, row)| row)
}

/// Every call of an architecture, by name.
#[cfg(test)]
pub(super) fn of(column: Column) -> impl Iterator<Item = (&'static str, u32)> {
    CALLS.iter().filter_map(move |(name, row)| Some((*name, row[column as usize]?)))
}

/// The number of a call, or `None` when that architecture lacks it.
pub(super) fn number(name: &str, column: Column) -> Option<u32> {
    row(name)?[column as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_complete() {
        let lines: Vec<&str> = TABLE.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines[0], "name\tx86_64\ti386\taarch64\tarm");
        assert!(lines[1..].is_sorted(), "calls.tsv is not sorted by name");
        for line in &lines[1..] {
            let cells: Vec<&str> = line.split('\t').collect();
            assert_eq!(cells.len(), 5, "{line}");
            assert!(cells[1..].iter().all(|cell| *cell == "-" || cell.parse::<u32>().is_ok()), "{line}");
            assert!(cells[1..].iter().any(|cell| *cell != "-"), "{line}");
        }
        assert_eq!(CALLS.len(), lines.len() - 1, "a name occurs twice");
    }

    #[test]
    fn numbers_are_those_of_libc() {
        #[cfg(target_arch = "x86_64")]
        let here = Column::X86_64;
        #[cfg(target_arch = "aarch64")]
        let here = Column::Aarch64;
        for (name, number_here) in [
            ("read", libc::SYS_read),
            ("execve", libc::SYS_execve),
            ("fchmodat", libc::SYS_fchmodat),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("clone3", libc::SYS_clone3),
        ] {
            assert_eq!(number(name, here).map(i64::from), Some(number_here), "{name}");
        }
        assert_eq!(number("chmod", Column::I386), Some(15));
        assert_eq!(number("chmod", Column::Aarch64), None);
        assert_eq!(number("fchmodat2", Column::Arm), Some(452));
    }

    /// The numbers of a kernel header, as `#define __NR_name number`.
    fn header(path: &str) -> Option<Vec<(String, u32)>> {
        let text = std::fs::read_to_string(path).ok()?;
        let define = |line: &str| {
            let mut words = line.split_whitespace();
            let name = (words.next()? == "#define").then(|| words.next())??;
            // asm-generic has two spellings for calls that 32-bit machines have in two widths.
            let name = name.strip_prefix("__NR_").or_else(|| name.strip_prefix("__NR3264_"))?;
            Some((name.to_owned(), words.next()?.parse().ok()?))
        };
        Some(text.lines().filter_map(define).collect())
    }

    #[test]
    fn numbers_are_those_of_the_kernels_headers() {
        let mut read = 0;
        for (path, column) in [
            ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", Column::X86_64),
            ("/usr/include/x86_64-linux-gnu/asm/unistd_32.h", Column::I386),
            ("/usr/include/asm-generic/unistd.h", Column::Aarch64),
        ] {
            for (name, expected) in header(path).into_iter().flatten() {
                // Not calls: the end of the list, the machine's own range; and calls of other widths or other machines.
                let other = ["syscalls", "arch_specific_syscall", "sync_file_range2", "stat", "lstat", "getrlimit64"];
                if other.contains(&name.as_str()) || (column == Column::Aarch64 && name.ends_with("time64")) {
                    continue;
                }
                let renamed = if name == "fstatat" { "newfstatat" } else { &name };
                assert_eq!(number(renamed, column), Some(expected), "{name} of {path}");
                read += 1;
            }
        }
        assert!(read == 0 || read > 600, "only {read} numbers were understood");
    }
}
