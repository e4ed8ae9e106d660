//! Liveness: a half-dead link accepts everything and delivers nothing, so only what arrives counts.

use super::handler::Handler;
use russh::client::Handle;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};
use tunnel::gate::Gate;

/// Between two heartbeats.
const INTERVAL: Duration = Duration::from_secs(2);
/// A link on which nothing arrived for this long is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(6);

/// Sends heartbeats until nothing has arrived for [`DEAD_AFTER`]. Any byte from the other end counts, the answers to the
/// heartbeats (`keepalive@openssh.com`, which every SSH server answers) among them.
pub async fn until_dead(handle: &Handle<Handler>, gate: &Gate) {
    let begin = Instant::now();
    let mut next = begin;
    loop {
        // Before the first heartbeat, nothing need have come.
        let deadline = gate.last_received().max(begin) + DEAD_AFTER;
        if deadline <= Instant::now() {
            return;
        }
        if next <= Instant::now() {
            next = Instant::now() + INTERVAL;
            // A session whose loop takes no message any more is as dead as its link; the deadline finds it.
            let _ = timeout_at(deadline, handle.send_keepalive(true)).await;
        }
        sleep_until(next.min(deadline)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn a_link_that_delivers_nothing_is_dead() {
        let (connection, frozen) = fake::connection().await;
        frozen.cancel();
        let before = Instant::now();
        let cause = timeout(DEAD_AFTER * 60, connection.ended()).await;
        let expected = "nothing came from the pod for 6 s";
        assert_eq!(cause.as_deref(), Ok(expected));
        assert_eq!(before.elapsed(), DEAD_AFTER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_on_which_nothing_happens_is_alive() {
        let (connection, _) = fake::connection().await;
        let ended = timeout(DEAD_AFTER * 60, connection.ended()).await;
        assert!(ended.is_err(), "{ended:?}");
    }
}
