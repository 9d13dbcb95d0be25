//! Which setting of the host to name when the kernel refuses a part of the sandbox. A pure choice from facts that are
//! read only when something has already failed.

use fodder_model::sandbox::Namespace;
use std::fs;

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Namespace(Namespace),
    IdMap,
    Mount,
    Proc,
}

/// Settings of the host that decide whether an ordinary user can have namespaces. `None`: no such setting here.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostSettings {
    max_user_namespaces: Option<u64>,
    /// A patch of Debian and older Ubuntu and Arch kernels.
    unprivileged_userns_clone: Option<u64>,
    /// Ubuntu 23.10 and later.
    apparmor_restriction: Option<u64>,
    /// Mounts that cover a part of `/proc`; the kernel then refuses a fresh one (mount_too_revealing in
    /// fs/namespace.c).
    covered_proc: Vec<String>,
}

impl HostSettings {
    pub(crate) fn read() -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        HostSettings {
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            unprivileged_userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restriction: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            covered_proc: covered_proc(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()),
        }
    }
}

/// Mount points below `/proc` in a mountinfo file, see proc(5); the fifth field is the mount point.
fn covered_proc(mountinfo: &str) -> Vec<String> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| point.starts_with("/proc/")).map(str::to_owned).collect()
}

pub(crate) fn remedy(refusal: Refusal, errno: i32, host: &HostSettings) -> Option<String> {
    match refusal {
        Refusal::Namespace(Namespace::User) => Some(user_namespace_remedy(errno, host)),
        Refusal::Namespace(namespace) if errno == libc::ENOSPC => Some(format!(
            "raise the sysctl user.max_{}_namespaces",
            match namespace {
                Namespace::User => "user",
                Namespace::Mount => "mnt",
                Namespace::Pid => "pid",
                Namespace::Ipc => "ipc",
                Namespace::Uts => "uts",
                Namespace::Network => "net",
                Namespace::Cgroup => "cgroup",
            }
        )),
        Refusal::Proc if errno == libc::EPERM && !host.covered_proc.is_empty() => Some(format!(
            "the kernel refuses a fresh /proc while parts of the present one are covered ({}); in a container, start \
             it with --security-opt systempaths=unconfined",
            host.covered_proc.join(", ")
        )),
        Refusal::Namespace(_) | Refusal::IdMap | Refusal::Mount | Refusal::Proc => {
            let refused = errno == libc::EPERM || errno == libc::EACCES;
            if refused && host.apparmor_restriction == Some(1) {
                Some(APPARMOR.to_owned())
            } else if refused {
                Some(CONTAINER.to_owned())
            } else {
                None
            }
        }
    }
}

const APPARMOR: &str = "AppArmor takes the capabilities of unprivileged user namespaces away: run sysctl \
                        kernel.apparmor_restrict_unprivileged_userns=0, or give this program an AppArmor profile with \
                        the rule `userns,`";
const CONTAINER: &str = "in a container, start it with --security-opt seccomp=unconfined --security-opt \
                         apparmor=unconfined --security-opt systempaths=unconfined";

fn user_namespace_remedy(errno: i32, host: &HostSettings) -> String {
    if host.max_user_namespaces == Some(0) || errno == libc::ENOSPC {
        "raise the sysctl user.max_user_namespaces, for example to 10000".to_owned()
    } else if host.unprivileged_userns_clone == Some(0) {
        "run sysctl kernel.unprivileged_userns_clone=1".to_owned()
    } else if host.apparmor_restriction == Some(1) {
        APPARMOR.to_owned()
    } else if errno == libc::EINVAL {
        "this kernel is built without user namespaces (CONFIG_USER_NS)".to_owned()
    } else {
        CONTAINER.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_refuses_is_the_one_that_is_named() {
        let user = Refusal::Namespace(Namespace::User);
        let free = HostSettings { max_user_namespaces: Some(1000), ..HostSettings::default() };
        let apparmor = HostSettings { apparmor_restriction: Some(1), ..free.clone() };
        let masked = HostSettings { covered_proc: vec!["/proc/kcore".into()], ..free.clone() };
        for (refusal, errno, host, expected) in [
            (user, libc::ENOSPC, &free, "user.max_user_namespaces"),
            (user, libc::EPERM, &HostSettings { max_user_namespaces: Some(0), ..free.clone() }, "max_user_namespaces"),
            (user, libc::EPERM, &HostSettings { unprivileged_userns_clone: Some(0), ..free.clone() }, "userns_clone=1"),
            (user, libc::EPERM, &apparmor, "apparmor_restrict_unprivileged_userns"),
            (user, libc::EPERM, &free, "seccomp=unconfined"),
            (user, libc::EINVAL, &free, "CONFIG_USER_NS"),
            (Refusal::IdMap, libc::EPERM, &apparmor, "apparmor_restrict_unprivileged_userns"),
            (Refusal::Mount, libc::EACCES, &apparmor, "apparmor_restrict_unprivileged_userns"),
            (Refusal::Proc, libc::EPERM, &masked, "/proc/kcore"),
            (Refusal::Proc, libc::EPERM, &masked, "systempaths=unconfined"),
            (Refusal::Namespace(Namespace::Network), libc::ENOSPC, &free, "user.max_net_namespaces"),
        ] {
            let hint = remedy(refusal, errno, host).unwrap();
            assert!(hint.contains(expected), "{refusal:?} {errno}: {hint}");
        }
        assert_eq!(remedy(Refusal::Mount, libc::ENOENT, &apparmor), None);
    }

    #[test]
    fn covered_parts_of_proc_are_found_in_mountinfo() {
        let text = "22 1 0:21 / /proc rw - proc proc rw\n23 22 0:5 /null /proc/kcore rw - devtmpfs udev rw\n";
        assert_eq!(covered_proc(text), ["/proc/kcore"]);
    }
}
