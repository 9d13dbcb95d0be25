//! Ids to run builds as, for callers that are root: a builder must not be the machine's root, nor anybody who exists.

use crate::{
    error::{At, StoreError},
    lock,
    store::Store,
};
use rustix::fs::{FlockOperation, OFlags};
use std::{collections::BTreeSet, ops::RangeInclusive, os::fd::OwnedFd};

/// Ids that no distribution gives to anybody: the start of what systemd's list of id ranges (`UIDS-GIDS.md`) calls
/// unused. Clear of Nix's own `auto-allocate-uids`, which begin at 872415232.
const PREFERRED: RangeInclusive<u64> = 0x7000_0000..=0x7000_00ff;

/// Where only few ids are mapped, as in most containers, the highest ones are tried, down to this: below are people and
/// services that were not here when we looked.
const LOWEST: u64 = 10_000;

/// How many ids of one mapped range are tried.
const TRIES_PER_RANGE: u64 = 256;

/// Ids with a meaning to the kernel: `nobody`, and what 16-bit interfaces show for "none".
const SPECIAL: [u64; 3] = [65_534, 65_535, 0xffff_ffff];

/// A user and group id that nobody else uses for the life of this value.
#[derive(Debug)]
pub struct BuildUser {
    /// The user id, as the caller's user namespace counts.
    pub uid: u32,
    /// The group id; the same number.
    pub gid: u32,
    /// Locked for as long as this lives.
    _lock: OwnedFd,
}

/// Takes an id for one build: mapped in the caller's user namespace, absent from `/etc/passwd` and `/etc/group` (ids of
/// directory services are not seen), and used by no other build in this store.
///
/// Fails with [`StoreError::NoBuildUser`] where there is none, as in a container with a single id.
pub fn allocate_build_user(store: &Store) -> Result<BuildUser, StoreError> {
    store.check_writable("take a build user")?;
    let (ids, mapped) = ids_of_this_machine()?;
    let pool = store.state().ensure("userpool", 0o700)?;
    let mut busy = 0;
    for id in ids {
        let name = id.to_string();
        let path = pool.child(&name);
        let file = pool.open_file(&name, OFlags::RDWR | OFlags::CREATE, 0o600).at("open the lock", &path)?;
        if lock::try_take(&file, FlockOperation::NonBlockingLockExclusive, &path)? {
            return Ok(BuildUser { uid: id, gid: id, _lock: file });
        }
        busy += 1;
    }
    Err(StoreError::NoBuildUser { mapped, busy })
}

/// The id that [`allocate_build_user`] takes when no other build runs. Takes nothing, for a look at what would be done.
pub fn first_build_user() -> Result<u32, StoreError> {
    let (ids, mapped) = ids_of_this_machine()?;
    ids.first().copied().ok_or(StoreError::NoBuildUser { mapped, busy: 0 })
}

/// Ids to try, best first, and how many are mapped at all.
fn ids_of_this_machine() -> Result<(Vec<u32>, u64), StoreError> {
    let read = |path: &str| std::fs::read_to_string(path).at("read", path);
    // Systems without these files have nobody to collide with.
    let read_accounts = |path: &str| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let users = parse_map(&read("/proc/self/uid_map")?);
    let groups = parse_map(&read("/proc/self/gid_map")?);
    let mut taken = parse_accounts(&read_accounts("/etc/passwd").unwrap_or_default());
    taken.extend(parse_accounts(&read_accounts("/etc/group").unwrap_or_default()));
    let mapped = users.iter().map(|range| range.end() - range.start() + 1).sum();
    Ok((candidates(&users, &groups, &taken), mapped))
}

/// Ids to try, best first.
fn candidates(users: &[RangeInclusive<u64>], groups: &[RangeInclusive<u64>], taken: &BTreeSet<u64>) -> Vec<u32> {
    let has = |ranges: &[RangeInclusive<u64>], id| ranges.iter().any(|range| range.contains(&id));
    let highest_first = users.iter().flat_map(|range| {
        let lowest =
            (*range.start()).max(LOWEST).max(range.end().saturating_sub(TRIES_PER_RANGE + SPECIAL.len() as u64));
        (lowest..=*range.end()).rev()
    });
    let mut seen = BTreeSet::new();
    PREFERRED
        .chain(highest_first)
        .filter(|id| has(users, *id) && has(groups, *id) && !taken.contains(id) && !SPECIAL.contains(id))
        .filter(|id| seen.insert(*id))
        .filter_map(|id| u32::try_from(id).ok())
        .collect()
}

/// Reads `/proc/PID/uid_map`: lines of first id inside, first id outside, count (`user_namespaces(7)`).
fn parse_map(text: &str) -> Vec<RangeInclusive<u64>> {
    let parse_line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (inside, _outside, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        (count > 0).then(|| inside..=inside.saturating_add(count - 1))
    };
    text.lines().filter_map(parse_line).collect()
}

/// Reads the ids of `passwd(5)` or `group(5)`: the third field; of users also the fourth, their group.
fn parse_accounts(text: &str) -> BTreeSet<u64> {
    text.lines().flat_map(|line| line.split(':').skip(2).take(2)).filter_map(|field| field.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "         0          0 4294967295\n";

    fn found(map: &str, accounts: &str) -> Vec<u32> {
        candidates(&parse_map(map), &parse_map(map), &parse_accounts(accounts))
    }

    #[test]
    fn an_ordinary_machine_offers_the_unused_high_range_first() {
        let ids = found(WHOLE, "root:x:0:0:root:/root:/bin/sh\n");
        assert_eq!(ids[..2], [0x7000_0000, 0x7000_0001]);
        assert_eq!(found(WHOLE, "odd:x:1879048192:1879048193::/:\n")[0], 0x7000_0002);
    }

    #[test]
    fn a_container_offers_its_highest_ids_without_nobody() {
        let ids = found("0 100000 65536\n", "nobody:x:65534:65534::/:\nsomeone:x:65532:65532::/:\n");
        assert_eq!(ids[..2], [65_533, 65_531]);
        assert!(ids.iter().all(|id| *id > 65_000));
    }

    #[test]
    fn one_mapped_id_offers_none() {
        assert!(found("0 1000 1\n", "").is_empty());
        assert!(found("1000 1000 1\n", "").is_empty());
        assert!(found("", "").is_empty());
    }

    #[test]
    fn users_and_groups_must_both_be_mapped() {
        let users = parse_map(WHOLE);
        assert!(candidates(&users, &parse_map("0 0 1\n"), &BTreeSet::new()).is_empty());
    }
}
