//! The pseudo-terminal that carries the build log. Builders look whether they write to a terminal, and Nix gives them
//! one (raw, so that no byte is changed), so we must.

use fodder_model::sandbox::Identity;
use nix::{
    fcntl::{OFlag, open},
    sys::{
        stat::Mode,
        termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr},
    },
    unistd::{Uid, fchown, geteuid},
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// Both ends.
pub(crate) struct Terminal {
    /// The log is read here; EIO means that the last writer is gone.
    pub(crate) master: OwnedFd,
    /// The builder's standard output and error.
    pub(crate) slave: OwnedFd,
}

impl Terminal {
    /// Opens a pair on the host's devpts, of size 0 by 0 and 38400 baud, which are the kernel's defaults.
    pub(crate) fn open(identity: &Identity) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        unlockpt(&master)?;
        // Not by the name in ptsname(3), which names something else when /dev/pts is another instance.
        let peer = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        // The ioctl keeps its flags as they are, which the builder would read back (F_GETFL); open(2) makes the usual ones of them.
        let slave = open(
            format!("/proc/self/fd/{}", peer.as_raw_fd()).as_str(),
            OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let mut settings = tcgetattr(&slave)?;
        cfmakeraw(&mut settings);
        tcsetattr(&slave, SetArg::TCSANOW, &settings)?;
        // The builder may open it anew (/dev/stdout), for which it must own it.
        let owner = Uid::from_raw(identity.outside_uid);
        if owner != geteuid() {
            fchown(&slave, Some(owner), None)?;
        }
        Ok(Terminal { master, slave })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{getegid, geteuid};

    #[test]
    fn programs_that_are_started_meanwhile_do_not_get_it() {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let identity = Identity { inside_uid: 1000, inside_gid: 100, outside_uid: uid, outside_gid: gid };
        let Terminal { master, slave } = Terminal::open(&identity).unwrap();
        for end in [master, slave] {
            assert!(crate::sys::closes_on_exec(end.as_raw_fd()).unwrap());
        }
    }
}
