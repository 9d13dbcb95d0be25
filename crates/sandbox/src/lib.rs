//! Runs a [`SandboxPlan`](fodder_model::sandbox::SandboxPlan): one process, PID 1 of new Linux namespaces, as an
//! ordinary user, without a daemon or a setuid helper. Has never heard of a derivation.
//!
//! ```no_run
//! # fn plan() -> fodder_model::sandbox::SandboxPlan { unimplemented!() }
//! fn main() -> Result<(), fodder_sandbox::SandboxError> {
//!     fodder_sandbox::dispatch_helper();
//!     let sandbox = fodder_sandbox::Sandbox::new(fodder_sandbox::Helper::current_exe()?)?;
//!     let report = sandbox.run(&plan(), &mut |log| eprint!("{}", String::from_utf8_lossy(log)))?;
//!     println!("{:?}", report.exit);
//!     Ok(())
//! }
//! ```
//!
//! Three processes take part. The *runner* is the caller: it reads the log and keeps its limits (`pump`). The *helper*
//! is a program with one thread that makes the namespaces and keeps the deadline (`helper`). The *builder-to-be* builds
//! the root, gives everything up, and executes the builder (`enter`). Each dies with the one before it.
#![deny(unsafe_code)]

mod control_group;
mod enter;
mod error;
mod helper;
mod launch;
mod pump;
mod remedy;
mod report;
mod seccomp;
mod steps;
mod sys;
mod terminal;
mod wire;
mod writers;

pub use error::SandboxError;
pub use launch::{
    Canceller, Helper, InternalProgram, Sandbox, WaitingHelper, dispatch_helper, dispatch_helper_with,
    dispatch_helper_without,
};
pub use report::{BuilderExit, BuilderReport, Enforced, GroupReport, Landlock, LandlockScope, SessionKeyring, Used};
pub use steps::SetupStep;
pub use wire::DoorSocket;
pub use writers::{Writers, hold_off_writers};

/// The version of Landlock in this kernel; 0 for none.
pub fn landlock_abi() -> u32 {
    sys::landlock_abi()
}

/// Whether this program runs with rights that its caller does not have (set-id bits or capabilities of its file). Then it must not
/// do anything: everything that it reads from its caller would be done with them (CVE-2020-5291, CVE-2016-8659).
pub fn has_borrowed_rights() -> bool {
    sys::is_secure_execution()
}

/// Ends a process of ours that is not the caller's.
#[expect(clippy::exit, reason = "the helper and its children must not return into the program they were started from")]
pub(crate) fn leave(status: i32) -> ! {
    std::process::exit(status)
}
