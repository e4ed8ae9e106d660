//! Registers a key with remote-sshd through the API server's exec: the cluster's own authentication vouches for both
//! ends, as the answer is the host key to expect.

use super::DialFailure;
use super::api::Api;
use super::container::PROGRAM;
use super::errors::Right;
use super::find::Found;
use crate::error::Error;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess};
use russh::keys::PublicKey;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// How long the exec may take once the API server has taken it on.
const AUTHORIZE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of output that are kept: a host key is one short line.
const OUTPUT_LIMIT: u64 = 16 << 10;
/// The exit code of remote-sshd for arguments that it does not know.
const USAGE: i32 = 2;

/// Has the container accept `key`.
///
/// # Errors
/// [`DialFailure`] with what the container says; its server may still be starting.
pub(super) async fn authorize(
    api: &Api,
    found: &Found,
    key: &PublicKey,
) -> Result<PublicKey, DialFailure> {
    let place = format!("container {} of pod {}", found.container, found.pod);
    let key = key.to_openssh().map_err(|error| {
        DialFailure::Fatal(Error::Authentication(format!(
            "cannot write the public key: {error}"
        )))
    })?;
    let pods: kube::Api<Pod> = kube::Api::namespaced(api.client.clone(), &api.account.namespace);
    let right = Right {
        verb: "get and create",
        resource: "pods/exec",
    };
    let parameters = AttachParams::default().container(&found.container);
    let command = [PROGRAM, "authorize", &key];
    let process = api
        .ask(right, pods.exec(&found.pod, command, &parameters))
        .await?;
    verdict(&place, finish(process)).await
}

/// What the command says once it is `finished`.
async fn verdict(
    place: &str,
    finished: impl Future<Output = Finished>,
) -> Result<PublicKey, DialFailure> {
    match timeout(AUTHORIZE_TIMEOUT, finished).await {
        Ok(finished) => judge(place, &finished),
        Err(_) => Err(DialFailure::Passing(Error::Authentication(format!(
            "{place} does not answer \"{PROGRAM} authorize\" within {} s",
            AUTHORIZE_TIMEOUT.as_secs()
        )))),
    }
}

/// What a finished command left.
#[derive(Debug, Default)]
struct Finished {
    stdout: String,
    stderr: String,
    status: Option<Status>,
}

/// Reads the process to its end. Dropped before, it ends the process's task.
async fn finish(mut process: AttachedProcess) -> Finished {
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let status = process.take_status();
    let (stdout, stderr, status) = tokio::join!(text(stdout), text(stderr), async {
        match status {
            Some(status) => status.await,
            None => None,
        }
    });
    Finished {
        stdout,
        stderr,
        status,
    }
}

async fn text(output: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = vec![];
    if let Some(output) = output {
        // What came before an error still tells something.
        let _ = output.take(OUTPUT_LIMIT).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

fn judge(place: &str, finished: &Finished) -> Result<PublicKey, DialFailure> {
    let Finished {
        stdout,
        stderr,
        status,
    } = finished;
    let Some(status) = status else {
        return Err(DialFailure::Passing(Error::Authentication(format!(
            "the connection broke while {place} was asked to accept the key"
        ))));
    };
    if status.status.as_deref() == Some("Success") {
        return PublicKey::from_openssh(stdout).map_err(|_| {
            DialFailure::Fatal(Error::Authentication(format!(
                "{place} answers \"{PROGRAM} authorize\" with something else than a host key: is it another version?"
            )))
        });
    }
    match exit_code(status) {
        Some(USAGE) => Err(DialFailure::Fatal(Error::Authentication(format!(
            "{place} does not know \"{PROGRAM} authorize\" as this version calls it: {stderr}"
        )))),
        Some(code) => Err(DialFailure::Passing(Error::Authentication(format!(
            "{place} does not accept the key (exit code {code}): {stderr}"
        )))),
        None => {
            let message = status.message.as_deref().unwrap_or("no reason given");
            let error = format!("{place} cannot run {PROGRAM}: {message}");
            Err(match message.contains("no such file or directory") {
                true => DialFailure::Fatal(Error::Target(format!(
                    "{error}: does its image contain telepresence-remote?"
                ))),
                false => DialFailure::Passing(Error::Unhealthy(error)),
            })
        }
    }
}

/// The exit code of a command that ran and failed.
fn exit_code(status: &Status) -> Option<i32> {
    if status.reason.as_deref() != Some("NonZeroExitCode") {
        return None;
    }
    let causes = status.details.as_ref()?.causes.as_ref()?;
    causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))?
        .message
        .as_deref()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::future::pending;
    use tokio::time::Instant;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    fn judged(stdout: &str, stderr: &str, status: Value) -> Result<PublicKey, DialFailure> {
        let finished = Finished {
            stdout: stdout.into(),
            stderr: stderr.into(),
            status: serde_json::from_value(status).unwrap(),
        };
        judge("container app of pod web-1", &finished)
    }

    fn exit(code: &str) -> Value {
        json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with non-zero exit code",
               "details": {"causes": [{"reason": "ExitCode", "message": code}]}})
    }

    #[test]
    fn the_host_key_is_the_answer() {
        let key = judged(KEY, "", json!({"status": "Success"})).unwrap();
        assert_eq!(key.to_openssh().unwrap(), KEY);
    }

    #[test]
    fn an_answer_that_is_no_key_is_refused() {
        for stdout in ["", "hello", "ssh-ed25519 AAAA"] {
            let failure = judged(stdout, "", json!({"status": "Success"})).unwrap_err();
            assert!(
                matches!(failure, DialFailure::Fatal(Error::Authentication(_))),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_containers_words_and_may_pass() {
        match judged("", "no server on the socket", exit("1")).unwrap_err() {
            DialFailure::Passing(Error::Authentication(message)) => {
                assert!(message.contains("no server on the socket"), "{message}");
            }
            other => panic!("{other:?}"),
        }
        let failure = judged("", "usage", exit("2")).unwrap_err();
        assert!(
            matches!(failure, DialFailure::Fatal(Error::Authentication(_))),
            "{failure:?}"
        );
    }

    #[test]
    fn an_image_without_our_program_is_told() {
        let missing = json!({"status": "Failure", "reason": "InternalError", "message":
            "error executing command in container: failed to exec in container: exec: \"/remote-sshd\": stat /remote-sshd: no such file or directory"});
        let failure = judged("", "", missing).unwrap_err();
        assert!(
            matches!(failure, DialFailure::Fatal(Error::Target(_))),
            "{failure:?}"
        );
        let failure = judged("", "", json!(null)).unwrap_err();
        assert!(matches!(failure, DialFailure::Passing(_)), "{failure:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_does_not_end_is_given_up_and_may_end_later() {
        let before = Instant::now();
        let asking = timeout(AUTHORIZE_TIMEOUT * 60, verdict("it", pending())).await;
        match asking.expect("it gives up").unwrap_err() {
            DialFailure::Passing(Error::Authentication(message)) => {
                assert!(message.contains("within 10 s"), "{message}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(before.elapsed(), AUTHORIZE_TIMEOUT);
    }
}
