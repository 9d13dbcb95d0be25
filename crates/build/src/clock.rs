//! When a build began, for the result's times and for registration.

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) struct Clock {
    pub(crate) start: i64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Clock { start: now() }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}
