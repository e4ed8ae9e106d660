//! How long to wait before the next attempt to connect.

use rand::RngExt;
use std::time::Duration;

/// Before the second attempt.
const FIRST: Duration = Duration::from_millis(100);
/// Between any two attempts, at most.
const LONGEST: Duration = Duration::from_secs(10);
/// A connection that lived this long starts the sequence anew.
const STABLE: Duration = Duration::from_secs(60);

/// Exponential delays with jitter.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Starts with the shortest delay.
    pub fn new() -> Backoff {
        Backoff { next: FIRST }
    }

    /// Takes note of how long a connection lived.
    pub fn lived(&mut self, time: Duration) {
        if time >= STABLE {
            self.next = FIRST;
        }
    }

    /// The next delay: between half and all of the step, so that many clients do not come back together.
    pub fn delay(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(LONGEST);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_and_start_anew_after_a_stable_connection() {
        let mut backoff = Backoff::new();
        let delays: Vec<_> = (0..12).map(|_| backoff.delay()).collect();
        assert!(delays.iter().all(|d| *d <= LONGEST));
        assert!(delays[0] <= FIRST && delays[11] >= LONGEST / 2);
        backoff.lived(STABLE / 2);
        assert!(backoff.delay() >= LONGEST / 2);
        backoff.lived(STABLE);
        assert!(backoff.delay() <= FIRST);
    }
}
