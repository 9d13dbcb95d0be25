//! Every connection takes two descriptors, and the usual limit is 1024: it is raised for as long as there is a door.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::{Mutex, PoisonError};

/// How many doors there are, and the limit before the first.
static RAISED: Mutex<(usize, Option<Rlimit>)> = Mutex::new((0, None));

#[derive(Debug)]
pub(crate) struct Raised(());

impl Raised {
    pub(crate) fn raise() -> Self {
        let mut raised = RAISED.lock().unwrap_or_else(PoisonError::into_inner);
        raised.0 += 1;
        if raised.0 == 1 {
            let before = getrlimit(Resource::Nofile);
            // Where it cannot be raised, connections beyond it wait to be accepted.
            if setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum }).is_ok() {
                raised.1 = Some(before);
            }
        }
        Raised(())
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        let mut raised = RAISED.lock().unwrap_or_else(PoisonError::into_inner);
        raised.0 -= 1;
        if raised.0 == 0
            && let Some(before) = raised.1.take()
        {
            let _ = setrlimit(Resource::Nofile, before);
        }
    }
}
