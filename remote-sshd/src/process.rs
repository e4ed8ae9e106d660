//! The process as a whole: what others may see of it, what it says, when it ends.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::IsTerminal;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// What is logged unless `RUST_LOG` says otherwise. russh warns of requests that stock clients make as a matter of course.
const DEFAULT_LOG: &str = "info,russh=error";

/// Keeps processes of the same user, in a pod with a shared process namespace, from reading memory or descriptors.
///
/// # Errors
/// Those of prctl(2).
pub fn hide() -> std::io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// Takes as many descriptors as may be had: each stream is one, and container runtimes leave the soft limit low for programs
/// that use select(2).
///
/// # Errors
/// Those of setrlimit(2).
pub fn raise_descriptor_limit() -> std::io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Logs to stderr, as `RUST_LOG` says.
pub fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| DEFAULT_LOG.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// The signals that end the process. The first process of a container gets none that it does not ask for.
#[derive(Debug)]
pub struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    /// Asks for them.
    ///
    /// # Errors
    /// Those of sigaction(2).
    pub fn new() -> std::io::Result<Ends> {
        Ok(Ends {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one; returns the exit code that tells of it. Cancel-safe.
    pub async fn next(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        };
        128 + u8::try_from(kind.as_raw_value()).unwrap_or(0)
    }
}
