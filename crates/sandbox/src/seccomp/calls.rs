//! Names and numbers of system calls, from the table in `calls.tsv`, which says how it was made.

use std::{collections::BTreeMap, sync::LazyLock};

const TABLE: &str = include_str!("calls.tsv");

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    X86_64,
    /// Has the bit 0x40000000 set and the same `seccomp_data.arch` as x86-64.
    X32,
    I386,
    Aarch64,
    Arm,
}

type Row = [Option<u32>; 5];

static CALLS: LazyLock<BTreeMap<&str, Row>> = LazyLock::new(|| {
    let rows = TABLE.lines().filter(|line| !line.starts_with('#')).skip(1);
    rows.filter_map(|line| {
        let mut cells = line.split('\t');
        let name = cells.next()?;
        let mut row = [None; 5];
        for (place, cell) in row.iter_mut().zip(cells) {
            *place = cell.parse().ok();
        }
        Some((name, row))
    })
    .collect()
});

/// Whether any architecture has a call of this name.
pub(super) fn is_known(name: &str) -> bool {
    CALLS.contains_key(name)
}

/// The number of a call, or `None` when that architecture lacks it.
pub(super) fn number(name: &str, column: Column) -> Option<u32> {
    CALLS.get(name)?[column as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_complete() {
        let lines: Vec<&str> = TABLE.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines[0], "name\tx86_64\tx32\ti386\taarch64\tarm");
        assert!(lines[1..].is_sorted(), "calls.tsv is not sorted by name");
        for line in &lines[1..] {
            let cells: Vec<&str> = line.split('\t').collect();
            assert_eq!(cells.len(), 6, "{line}");
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
        assert_eq!(number("chmod", Column::X32), Some(0x4000_0000 + 90));
        assert_eq!(number("chmod", Column::Aarch64), None);
        assert_eq!(number("fchmodat2", Column::Arm), Some(452));
    }
}
