//! The app's connections on their way to the pod.

use crate::pod::{Pod, Target};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tunnel::copy;
use tunnel::dial::DialError;
use tunnel::stream::Stream;

/// Targets whose last failure is remembered. More than an app has that fail at the same time.
const REMEMBERED: usize = 1024;

/// Opens connections through the pod, and says why one fails: loudly the first time, quietly when it repeats.
pub(crate) struct Outbound {
    pod: Arc<dyn Pod>,
    failing: Mutex<HashMap<Target, DialError>>,
}

impl Outbound {
    pub(crate) fn new(pod: Arc<dyn Pod>) -> Outbound {
        Outbound {
            pod,
            failing: Mutex::default(),
        }
    }

    /// Opens a connection; the pod's own time limits apply.
    pub(crate) async fn open(&self, target: &Target) -> Result<Stream, DialError> {
        let outcome = self.pod.open(target).await;
        let news = self.remember(target, outcome.as_ref().err().copied());
        match &outcome {
            // The session tells of the link itself.
            Err(error) if news && *error != DialError::LinkDown => {
                tracing::warn!("{target}: {error}");
            }
            Err(error) => tracing::debug!("{target}: {error}"),
            Ok(_) => tracing::debug!("{target}: connected"),
        }
        outcome
    }

    /// Leads a connection of the app to `target`; one that cannot be is reset, so that nobody takes it for an empty answer.
    pub(crate) async fn forward(&self, tcp: TcpStream, target: &Target) {
        match self.open(target).await {
            Ok(stream) => {
                // A reset reaches both sides by itself.
                let _ = copy::splice(tcp, stream).await;
            }
            Err(_) => copy::reset(&tcp),
        }
    }

    /// Notes how the last attempt at `target` ended; whether it failed otherwise than the one before.
    fn remember(&self, target: &Target, failure: Option<DialError>) -> bool {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(failure) = failure else {
            failing.remove(target);
            return false;
        };
        if failing.len() >= REMEMBERED {
            failing.clear();
        }
        failing.insert(target.clone(), failure) != Some(failure)
    }
}
