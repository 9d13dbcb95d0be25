//! Giving up capabilities. Read-only mounts hold only because of this: with CAP_SYS_ADMIN in its user namespace a
//! builder could remount its inputs writable (measured, shared/reference/security.md 2f).

use crate::wire::Failure;
use caps::{CapSet, CapsHashSet};

/// In this order: the bounding set takes CAP_SETPCAP, which goes with the permitted set, which must contain the
/// effective one.
const SETS: [CapSet; 5] =
    [CapSet::Ambient, CapSet::Bounding, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted];

pub(super) fn drop_capabilities() -> Result<(), Failure> {
    for set in SETS {
        caps::clear(None, set)
            .map_err(|error| Failure::Check { finding: format!("the {set:?} capabilities stay: {error}") })?;
    }
    for set in SETS {
        let left = caps::read(None, set).unwrap_or_else(|_| caps::all());
        if left != CapsHashSet::new() {
            return Err(Failure::Check { finding: format!("{set:?} capabilities are left: {left:?}") });
        }
    }
    Ok(())
}
