//! What hostile builds try. Each attack names itself as the notes on security do (`Attack:`), and the layer that stops it (`Layer:`);
//! `docs/security.md` is made of these lines. A control run shows that the attack would work without the layer.

mod derivations; // what a derivation asks for
mod directories; // what it works in, and who may take it away meanwhile
mod network; // ways out for descriptors
mod outputs; // after the builder: writers, links, modes, names

use crate::{lab::Lab, recipe::Recipe};
use serde_json::Value;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// A script that, when it has done its work, waits for [`during`].
pub fn waiting(script: &str) -> String {
    format!("{script}; echo > /build/ready; while [ ! -e /build/go ]; do sleep 0.01; done; test ! -e /build/fail")
}

/// Builds a recipe that waits, and does something to its scratch directory meanwhile, as the person who builds or as somebody
/// who found a way in.
pub fn during(lab: &Lab, recipe: &Recipe, arguments: &[&str], act: impl FnOnce(&Path) + Send) -> (i32, Value) {
    let builds = lab.store().join("nix/var/nix/builds");
    std::thread::scope(|scope| {
        let actor = scope.spawn(move || {
            let deadline = Instant::now() + Duration::from_secs(60);
            let scratch = loop {
                let entries = std::fs::read_dir(&builds).into_iter().flatten().flatten();
                let found = entries.map(|entry| entry.path()).find(|path| path.join("build/ready").exists());
                match found {
                    Some(scratch) => break scratch,
                    None => assert!(Instant::now() < deadline, "the builder does not get ready"),
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            // The builder must come to its end even if the test has failed.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&scratch)));
            std::fs::write(scratch.join("build/go"), "").expect("let it go on");
            done
        });
        let result = lab.make_json(recipe, arguments);
        if let Err(panic) = actor.join().expect("the actor") {
            std::panic::resume_unwind(panic);
        }
        result
    })
}
