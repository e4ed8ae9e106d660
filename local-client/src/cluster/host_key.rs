//! The host key as the container's log tells it, for those who may read the log but not exec: the API server vouches for it.

use super::DialFailure;
use super::api::Api;
use super::errors::Right;
use super::find::Found;
use crate::error::Error;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use russh::keys::PublicKey;

/// What stands before the key in remote-sshd's log, ...
const WORDS: &str = "host key ";
/// ... and before all that is said at this level, after the time.
const LEVEL: &str = " INFO ";
/// Bytes of the log that are read. The key is among the first lines.
const BEGINNING: i64 = 16 << 10;

/// Reads the host key in the log of the container.
///
/// # Errors
/// [`DialFailure`]; the server may still be starting.
pub(super) async fn host_key(api: &Api, found: &Found) -> Result<PublicKey, DialFailure> {
    let pods: kube::Api<Pod> = kube::Api::namespaced(api.client.clone(), &api.account.namespace);
    let right = Right {
        verb: "get",
        resource: "pods/log",
    };
    let parameters = LogParams {
        container: Some(found.container.clone()),
        limit_bytes: Some(BEGINNING),
        ..LogParams::default()
    };
    let log = api.ask(right, pods.logs(&found.pod, &parameters)).await?;
    first(&log).ok_or_else(|| {
        DialFailure::Passing(Error::Authentication(format!(
            "the log of container {} of pod {} does not begin with a host key: does it run telepresence-remote? If its log was cut off since, or RUST_LOG \
             leaves it out, give the key with --host-key",
            found.container, found.pod
        )))
    })
}

/// The first one: it stands there before any client may have had a word of its own put into the log.
fn first(log: &str) -> Option<PublicKey> {
    let mut said = log
        .lines()
        .filter_map(|line| Some(line.split_once(LEVEL)?.1));
    let line = said.find_map(|said| said.strip_prefix(WORDS))?;
    PublicKey::from_openssh(line.trim_end()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn the_first_host_key_counts() {
        let log = format!(
            "2026-01-01T00:00:00Z  INFO host key {KEY}\nINFO listening\nINFO host key of another\n"
        );
        assert_eq!(first(&log).unwrap().to_openssh().unwrap(), KEY);
        assert!(first("INFO listening on 127.0.0.1:8022\n").is_none());
        assert!(first("0  INFO host key of another\n").is_none());
        // Whatever a client's name is.
        let named = format!("0  INFO connected client=\" INFO host key {KEY}\"\n");
        assert!(first(&named).is_none());
    }
}
