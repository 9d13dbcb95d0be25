//! Giving up capabilities. Read-only mounts hold only because of this: with CAP_SYS_ADMIN in its user namespace a
//! builder could remount its inputs writable (measured, shared/reference/security.md 2f).

use crate::{
    steps::{LeftOut, SetupStep},
    wire::Failure,
};
use caps::CapSet;

/// In this order: the bounding set takes CAP_SETPCAP, which goes with the permitted set, which must contain the
/// effective one. That they are empty is read back from the kernel afterwards, see `check`.
const SETS: [CapSet; 5] =
    [CapSet::Ambient, CapSet::Bounding, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted];

pub(super) fn drop_capabilities(left_out: LeftOut<'_>) -> Result<(), Failure> {
    for set in SETS {
        let step = match set {
            CapSet::Ambient | CapSet::Bounding => SetupStep::BoundingSet,
            CapSet::Inheritable | CapSet::Effective | CapSet::Permitted => SetupStep::Capabilities,
        };
        left_out.step(step, || {
            caps::clear(None, set)
                .map_err(|error| Failure::Check { finding: format!("the {set:?} capabilities stay: {error}") })
        })?;
    }
    Ok(())
}
