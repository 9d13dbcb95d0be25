//! What the three processes tell each other: the builder-to-be tells the helper over a private pipe, the helper and the runner
//! tell each other over a socket. Messages are single JSON datagrams; nothing of this ever goes through the build log.

use crate::{
    report::{Enforced, Used},
    sys,
};
use fodder_model::{bytes::ByteString, limits::Limit, sandbox::Namespace};
use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, sendmsg,
        socketpair,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

/// The hidden first argument that turns a program into the helper.
pub(crate) const HELPER_ARGUMENT: &str = "__fodder-sandbox-helper";

/// The variable with the soft limit of open files that the builder is to have.
pub(crate) const OPEN_FILES_VARIABLE: &str = "FODDER_OPEN_FILES";

/// More than any message needs; the longest is a failure that quotes a path.
const MESSAGE_BYTES: usize = 64 * 1024;

/// Why the sandbox does not stand. What `SandboxError` is made from, on the other side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// The plan cannot be carried out anywhere.
    Plan { reason: String },
    /// A namespace is not to be had.
    Namespace { namespace: Namespace, errno: i32 },
    /// The id maps of the user namespace were refused.
    IdMap { file: String, errno: i32 },
    /// A step of the root failed.
    Step { index: usize, doing: String, errno: i32 },
    /// Anything else that was done.
    Setup { doing: String, errno: i32 },
    /// What was asked for is not what is in force.
    Check { finding: String },
}

/// From the runner to the helper, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RunnerWord {
    /// The builder's standard output and error come with this message.
    Log,
    /// A file with the plan comes with this message, and the directory of the build's own control group is this.
    Plan { control_group: Option<ByteString> },
}

/// From the builder-to-be to the helper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BuilderWord {
    /// All is set up; the next thing is execve.
    Ready(Enforced),
    /// It cannot be set up.
    Failed(Failure),
}

/// From the helper to the runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HelperWord {
    /// A socket of the builder's network namespace; it comes with this message.
    Door(DoorSocket),
    /// There is a PID 1; its pidfd comes with this message.
    Started,
    /// It is gone, and everything in its pid namespace with it.
    Finished { ending: Ending, cpu_user_micros: u64, cpu_system_micros: u64, enforced: Enforced, used: Used },
    /// The builder never ran.
    Failed(Failure),
}

/// What a socket of the door is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DoorSocket {
    /// Listens for connections to any address and port; where they wanted to go is their original destination.
    Redirected,
    /// Listens for connections to any address; where they wanted to go is the local address.
    Port,
    /// Gets what is sent to the name server over UDP.
    Names,
}

/// How the builder ended, as the helper saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    Exited(i32),
    Signaled(i32),
    Deadline,
    OverLimit { limit: Limit, allowed: u64, used: u64 },
}

/// Says what was being done when an operating system call failed.
pub(crate) trait Doing<T> {
    /// Turns the error into a [`Failure::Setup`].
    fn doing(self, doing: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure::Setup { doing: doing.into(), errno: errno_of(&error.into()) })
    }
}

/// The errno of an error; EIO for those that carry none (a short read, for example).
pub(crate) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// A pair of sockets that keep message boundaries and are closed by execve.
pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends one message, with a descriptor if there is one.
pub(crate) fn send(socket: impl AsFd, message: &impl Serialize, descriptor: Option<&OwnedFd>) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let numbers: Vec<RawFd> = descriptor.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
    sendmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one message, or `None` when the other end is closed.
pub(crate) fn receive<T: for<'de> Deserialize<'de>>(socket: impl AsFd) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut buffer = vec![0; MESSAGE_BYTES];
    let mut space = cmsg_space!(RawFd);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let (length, mut descriptors) = loop {
        match recvmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &mut slices, Some(&mut space), flags) {
            Ok(message) => break (message.bytes, descriptors_of(message.cmsgs()?)),
            Err(Errno::EINTR) => continue,
            // Who died before they read everything reset the connection; for us that is their end too.
            Err(Errno::ECONNRESET) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&buffer[..length])?;
    Ok(Some((message, descriptors.pop())))
}

fn descriptors_of(messages: impl Iterator<Item = ControlMessageOwned>) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    for message in messages {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            descriptors.extend(numbers.into_iter().map(sys::own_received_descriptor));
        }
    }
    descriptors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_travels_with_its_message_and_the_end_is_seen() {
        let (ours, theirs) = socket_pair().unwrap();
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        send(&theirs, &HelperWord::Started, Some(&file)).unwrap();
        drop(theirs);
        let (message, descriptor) = receive::<HelperWord>(&ours).unwrap().unwrap();
        assert_eq!(message, HelperWord::Started);
        let closes = |fd: &OwnedFd| sys::closes_on_exec(fd.as_raw_fd()).unwrap();
        assert!(descriptor.as_ref().is_some_and(closes) && closes(&ours), "a program started meanwhile would have it");
        assert!(receive::<HelperWord>(&ours).unwrap().is_none());
    }
}
