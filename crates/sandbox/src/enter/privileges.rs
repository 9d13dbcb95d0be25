//! Giving up capabilities. Read-only mounts hold only because of this: with CAP_SYS_ADMIN in its user namespace a
//! builder could remount its inputs writable (measured, shared/reference/security.md 2f).

use crate::{
    steps::{LeftOut, SetupStep},
    wire::Failure,
};
use caps::CapSet;

/// In this order: the bounding set takes CAP_SETPCAP, which goes with the permitted set. The effective set goes with that one
/// (capset(2) would refuse it otherwise), and so does the ambient one (capabilities(7)). That all five are empty is read back from
/// the kernel afterwards, see `check`.
const SETS: [CapSet; 3] = [CapSet::Bounding, CapSet::Inheritable, CapSet::Permitted];

pub(super) fn drop_capabilities(left_out: LeftOut<'_>) -> Result<(), Failure> {
    for set in SETS {
        let step = match set {
            CapSet::Bounding => SetupStep::BoundingSet,
            CapSet::Ambient | CapSet::Inheritable | CapSet::Effective | CapSet::Permitted => SetupStep::Capabilities,
        };
        left_out.step(step, || {
            caps::clear(None, set)
                .map_err(|error| Failure::Check { finding: format!("the {set:?} capabilities stay: {error}") })
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use caps::Capability;

    /// Attack: KRN-1 (capabilities that the runner was given to hand on). Layer: all five sets are emptied.
    #[test]
    fn nothing_is_left_in_any_of_the_five_sets() {
        if !nix::unistd::geteuid().is_root() {
            return; // Who has no capabilities can give none up.
        }
        // Capabilities are a thread's own.
        let dropped = std::thread::spawn(|| {
            let all = [CapSet::Bounding, CapSet::Permitted, CapSet::Effective, CapSet::Inheritable, CapSet::Ambient];
            caps::raise(None, CapSet::Inheritable, Capability::CAP_CHOWN).unwrap();
            caps::raise(None, CapSet::Ambient, Capability::CAP_CHOWN).unwrap();
            for set in all {
                assert!(!caps::read(None, set).unwrap().is_empty(), "{set:?} before");
            }
            drop_capabilities(LeftOut::default()).unwrap();
            for set in all {
                assert!(caps::read(None, set).unwrap().is_empty(), "{set:?} afterwards");
            }
        });
        dropped.join().unwrap();
    }
}
