//! From a seccomp policy, which speaks of names, to one filter for all system call interfaces of the machine.
//!
//! Our own emitter, because a 64-bit kernel also answers the calls of 32-bit programs, and a filter that knows one
//! architecture must either kill those programs or let their calls pass (shared/reference/crates-and-network.md 2.2).

mod calls;
mod decide;
mod emit;
#[cfg(test)]
mod interpret;

use fodder_model::sandbox::{SeccompAction, SeccompPolicy};
use libc::sock_filter;

/// A family of system call interfaces that one kernel answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// x86-64, with x32 and i386.
    X86,
    /// aarch64, with 32-bit ARM.
    Arm,
}

/// The machine that this program is compiled for.
pub(crate) const HERE: Machine = if cfg!(target_arch = "aarch64") { Machine::Arm } else { Machine::X86 };

/// Compiles a policy; `None` when it allows everything, which needs no filter.
///
/// # Errors
/// In words, when a rule names an unknown call, an argument beyond the sixth, or an errno that the kernel would cut.
pub(crate) fn compile(policy: &SeccompPolicy, machine: Machine) -> Result<Option<Vec<sock_filter>>, String> {
    let SeccompPolicy { default, rules } = policy;
    if *default == SeccompAction::Allow && rules.is_empty() {
        return Ok(None);
    }
    decide::check(policy)?;
    let interfaces = machine.interfaces().iter().map(|interface| (interface.audit, decide::table(policy, interface)));
    emit::program(&interfaces.collect::<Vec<_>>(), *default).map(Some)
}

/// One value of `seccomp_data.arch`, with the columns of the table whose calls it has.
pub(crate) struct Interface {
    audit: u32,
    columns: &'static [calls::Column],
}

impl Machine {
    fn interfaces(self) -> &'static [Interface] {
        // AUDIT_ARCH_* of linux/audit.h: the ELF machine, with __AUDIT_ARCH_64BIT and __AUDIT_ARCH_LE.
        const X86_64: Interface =
            Interface { audit: 0xC000_003E, columns: &[calls::Column::X86_64, calls::Column::X32] };
        const I386: Interface = Interface { audit: 0x4000_0003, columns: &[calls::Column::I386] };
        const AARCH64: Interface = Interface { audit: 0xC000_00B7, columns: &[calls::Column::Aarch64] };
        const ARM: Interface = Interface { audit: 0x4000_0028, columns: &[calls::Column::Arm] };
        match self {
            Machine::X86 => &[X86_64, I386],
            Machine::Arm => &[AARCH64, ARM],
        }
    }
}

#[cfg(test)]
mod tests;
