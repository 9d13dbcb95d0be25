//! When to kill something so that it dies at its work, on a machine of any speed.

use std::{process::Child, time::Duration};

/// Kills processes that all do the same, each at another instant of their work.
pub(crate) struct Aim {
    /// How long their work seems to take: shorter after every one that had ended, longer after every one that had not.
    whole: Duration,
    /// How many had not ended.
    hits: u32,
    /// How many there were.
    shots: u32,
}

impl Aim {
    /// With a guess at how long the work takes; a bad one costs some rounds.
    pub(crate) fn new(guess: Duration) -> Self {
        Aim { whole: guess, hits: 0, shots: 0 }
    }

    /// Whether fewer than so many were killed at work. Panics when that does not seem to come to an end.
    pub(crate) fn has_hit_fewer_than(&self, wanted: u32) -> bool {
        let has_hit = self.hits >= wanted;
        assert!(has_hit || self.shots < wanted * 20, "only {} of {} were still at work", self.hits, self.shots);
        !has_hit
    }

    /// Waits, kills, and waits for the end.
    pub(crate) fn shoot(&mut self, child: &mut Child) {
        std::thread::sleep(self.whole.mul_f64(fastrand::f64()));
        let hit = child.try_wait().expect("look").is_none();
        child.kill().expect("kill");
        child.wait().expect("wait");
        self.shots += 1;
        self.hits += u32::from(hit);
        self.whole = self.whole.mul_f64(if hit { 1.1 } else { 0.8 });
    }
}
