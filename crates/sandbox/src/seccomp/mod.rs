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
    /// x86-64, with i386; x32 is answered with ENOSYS.
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
    let decisions = decide::by_name(policy);
    let sections = machine.interfaces().iter().map(|interface| emit::Section {
        audit: interface.audit,
        absent_from: interface.absent_from,
        table: decide::by_number(&decisions, interface.column),
    });
    emit::program(&sections.collect::<Vec<_>>(), *default).map(Some)
}

/// One value of `seccomp_data.arch`, with the column of the table whose calls it has.
struct Interface {
    audit: u32,
    /// From this number on there are no calls, whatever the policy says.
    absent_from: Option<u32>,
    column: calls::Column,
}

/// __X32_SYSCALL_BIT: the calls of x32 have the architecture of x86-64 and numbers of their own, a second way to each call that
/// every rule would have to think of. Hardly a kernel has them, and nothing is built for them.
const X32_BIT: u32 = 0x4000_0000;

impl Machine {
    fn interfaces(self) -> &'static [Interface] {
        // AUDIT_ARCH_* of linux/audit.h: the ELF machine, with __AUDIT_ARCH_64BIT and __AUDIT_ARCH_LE.
        const X86_64: Interface =
            Interface { audit: 0xC000_003E, absent_from: Some(X32_BIT), column: calls::Column::X86_64 };
        const I386: Interface = Interface { audit: 0x4000_0003, absent_from: None, column: calls::Column::I386 };
        const AARCH64: Interface = Interface { audit: 0xC000_00B7, absent_from: None, column: calls::Column::Aarch64 };
        const ARM: Interface = Interface { audit: 0x4000_0028, absent_from: None, column: calls::Column::Arm };
        match self {
            Machine::X86 => &[X86_64, I386],
            Machine::Arm => &[AARCH64, ARM],
        }
    }
}

#[cfg(test)]
mod shipped;
#[cfg(test)]
mod tests;
