//! How much of everything the machine has: what limits are when nobody says.

use super::control_group;
use fodder_model::limits::MachineResources;
use nix::sys::resource::{Resource, getrlimit};
use std::path::Path;

/// Looks; `disk` is a path on the file system where builds take place, or where one will be.
pub(super) fn read(disk: &Path) -> MachineResources {
    let space = disk.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
    let space = space.as_ref();
    let soft = |resource| getrlimit(resource).ok().map(|(soft, _)| soft);
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse().ok();
    let group = control_group::find();
    MachineResources {
        memory_bytes: memory_bytes(&group),
        processors: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
        disk_bytes: space.map(|space| space.f_blocks.saturating_mul(space.f_frsize)).filter(|bytes| *bytes > 0),
        disk_free_bytes: space.map(|space| space.f_bavail.saturating_mul(space.f_frsize)).filter(|bytes| *bytes > 0),
        // Zero where inodes are made as they are needed, as in btrfs.
        disk_free_files: space.filter(|space| space.f_files > 0).map(|space| space.f_favail),
        open_files: soft(Resource::RLIMIT_NOFILE),
        locked_memory_bytes: soft(Resource::RLIMIT_MEMLOCK),
        inotify_instances: number("/proc/sys/user/max_inotify_instances"),
        inotify_watches: number("/proc/sys/user/max_inotify_watches"),
        control_group: group.usable,
    }
}

/// The machine's, or less where our own control group may have less.
fn memory_bytes(group: &control_group::Found) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    [total, group.memory_bytes].into_iter().flatten().min().unwrap_or_default()
}
