//! Claiming a port of the pod, with patience for a holder that may be about to leave.

use super::connection::Connection;
use crate::pod::ListenError;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tunnel::claims::{Claim, Port, RefusalReason, Report, UDP};

/// How long a port held by another client is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long before the holder is named: one that was killed just now is gone by then.
const UNREMARKED: Duration = Duration::from_secs(2);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(250);

/// Claims `port`, waiting [`PATIENCE`] for another holder, who is named in the log.
pub(super) async fn claim(connection: &Connection, port: Port) -> Result<(), ListenError> {
    let start = Instant::now();
    let mut named = false;
    if let (Port::Udp(_), false) = (port, connection.is_ours()) {
        let reason = "another SSH server than telepresence-remote carries no UDP".into();
        return Err(ListenError::Other { port, reason });
    }
    loop {
        if connection.request_port(port).await? {
            return Ok(());
        }
        if !connection.is_ours() {
            return Err(ListenError::Other {
                port,
                reason: "the SSH server refuses it, and does not say why (AllowTcpForwarding, PermitListen, or the port is taken)".into(),
            });
        }
        let report = connection.claims().await.ok_or(ListenError::LinkDown)?;
        let error = explain(&report, port);
        let ListenError::Held { holder, .. } = &error else {
            return Err(error);
        };
        if start.elapsed() >= PATIENCE {
            return Err(error);
        }
        if !named && start.elapsed() >= UNREMARKED {
            named = true;
            tracing::warn!(
                "port {port} of the pod is held by {holder}; waiting {} s for it",
                PATIENCE.as_secs()
            );
        }
        sleep(RETRY).await;
    }
}

/// Why `port` was refused.
fn explain(report: &Report, port: Port) -> ListenError {
    let is_it = |address: &str, number| {
        number == port.number() && (address == UDP) == matches!(port, Port::Udp(_))
    };
    let mut refusals = report.refusals.iter().rev();
    let refusal = refusals.find(|refusal| is_it(&refusal.address, refusal.port));
    match refusal.map(|r| &r.reason) {
        Some(RefusalReason::InUse) => ListenError::InUse(port),
        // Another one takes its place.
        Some(RefusalReason::Ending) => ListenError::LinkDown,
        Some(RefusalReason::Permission) => ListenError::Permission(port),
        Some(RefusalReason::Other(reason)) => ListenError::Other {
            port,
            reason: reason.clone(),
        },
        Some(RefusalReason::Held) | None => ListenError::Held {
            port,
            holder: report
                .claims
                .iter()
                .find(|claim| is_it(&claim.address, claim.port))
                .map_or_else(|| "another client, which left just now".into(), describe),
        },
    }
}

fn describe(claim: &Claim) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let minutes = now.saturating_sub(claim.since) / 60;
    format!(
        "\"{}\" (key {}) for {minutes} min",
        claim.comment, claim.fingerprint
    )
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;
    use std::io;
    use std::sync::{Arc, OnceLock};
    use tokio::time::timeout;
    use tunnel::claims::Refusal;

    const PORT: Port = Port::Tcp(80);

    fn report(reason: RefusalReason) -> Report {
        Report {
            claims: vec![Claim {
                address: String::new(),
                port: 80,
                fingerprint: "SHA256:abc".into(),
                comment: "someone".into(),
                since: 0,
                yours: false,
            }],
            refusals: vec![Refusal {
                address: String::new(),
                port: 80,
                reason,
            }],
        }
    }

    #[test]
    fn the_holder_is_named() {
        let text = explain(&report(RefusalReason::Held), PORT).to_string();
        assert!(
            text.contains("someone") && text.contains("SHA256:abc"),
            "{text}"
        );
    }

    #[test]
    fn other_reasons_are_told_apart() {
        assert_eq!(
            explain(&report(RefusalReason::InUse), PORT),
            ListenError::InUse(PORT)
        );
        assert_eq!(
            explain(&report(RefusalReason::Permission), PORT),
            ListenError::Permission(PORT)
        );
    }

    #[test]
    fn a_port_of_udp_is_another_one() {
        let text = explain(&report(RefusalReason::InUse), Port::Udp(80)).to_string();
        assert!(
            text.contains("80/udp") && text.contains("left just now"),
            "{text}"
        );
    }

    /// Claims a port whose holder stays.
    async fn refused() -> ListenError {
        let (connection, _) = fake::connection().await;
        let claiming = timeout(PATIENCE * 60, claim(&connection, PORT)).await;
        claiming.expect("it gives up").unwrap_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_stays_is_not_waited_for_any_longer() {
        let before = Instant::now();
        let error = refused().await;
        assert!(matches!(error, ListenError::Held { .. }), "{error}");
        assert_eq!(before.elapsed(), PATIENCE);
    }

    /// Knows when the holder was named.
    #[derive(Clone, Default)]
    struct Log(Arc<OnceLock<Instant>>);

    impl io::Write for Log {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if String::from_utf8_lossy(line).contains("port 80 of the pod is held by") {
                self.0.set(Instant::now()).expect("once");
            }
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_may_leave_at_once_is_not_named() {
        let log = Log::default();
        let writer = log.clone();
        let logging = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let _logging = tracing::subscriber::set_default(logging.finish());
        let before = Instant::now();
        refused().await;
        assert_eq!(log.0.get().map(|named| *named - before), Some(UNREMARKED));
    }
}
