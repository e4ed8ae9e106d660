//! What all ways lead to: the load's server in a pod. Beside it is what they lead through.

use anyhow::Result;
use std::process::Command;
use std::sync::Arc;
use tests::app;
use tests::caller::Caller;
use tests::client::{Builder, Client};
use tests::cluster::Cluster;
use tests::manifests;
use tests::namespace::Namespace;
use tests::shell::Shell;
use tests::ssh::Key;

/// The name of the load's pod and Service.
pub const LOAD: &str = "load";
/// The load's port.
pub const PORT: u16 = 9000;
/// The name of the pod of OpenSSH's server.
pub const SSHD: &str = "sshd";
/// Its port, one that needs no root.
pub const SSHD_PORT: u16 = 2222;
/// Beside the load: what the client takes for the container to connect to, at the load's port.
const DOOR: &str = "
  - {name: door, image: telepresence-remote:dev, command: [/remote-sshd, --port, '8022'], env: [{name: TELEPRESENCE_SSH_PORT, value: '9000'}]}";
/// Both ends of the load.
const PROGRAM: &str = include_str!("../../../bench/load.py");

/// The pods, and the keys of OpenSSH's two ends.
pub struct Lab {
    pub namespace: Namespace,
    /// The user's key, which the server lets in.
    pub key: Key,
    /// The line of the server's public key.
    pub host_key: String,
}

impl Lab {
    pub fn new(cluster: Arc<Cluster>) -> Result<Lab> {
        let namespace = Namespace::on(cluster)?.with_target()?;
        // The node itself: a container on the default bridge would reach what Docker publishes through a program of Docker's, and
        // those that run on this machine would not.
        let node = namespace.kubectl(
            "get node -o jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}",
        )?;
        let name = namespace.kubectl("config view --minify -o jsonpath={.clusters[0].name}")?;
        namespace.kubectl(&format!(
            "config set-cluster {name} --server=https://{node}:6443"
        ))?;
        let key = Key::new(&namespace, "bench")?;
        // Both keys are made here and now. All that the server does not get told is as Debian has it.
        let sshd = format!(
            "mkdir ~tunnel/.ssh && echo '{}' >~tunnel/.ssh/authorized_keys && ssh-keygen -q -t ed25519 -N '' -f /host_key && \
             exec /usr/sbin/sshd -D -e -p {SSHD_PORT} -h /host_key -o UsePAM=no -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no",
            key.public
        );
        namespace.apply(&format!(
            "{}{}{}",
            manifests::service_for(LOAD, PORT, LOAD, PORT),
            pod(
                LOAD,
                app::IMAGE,
                &load(&["serve", &PORT.to_string()]),
                PORT,
                DOOR
            ),
            pod(
                SSHD,
                "telepresence-test/sshd:1",
                &["sh", "-c", &sshd],
                SSHD_PORT,
                ""
            ),
        ))?;
        namespace.ready(&format!("pod/{LOAD} pod/{SSHD}"))?;
        namespace.rolled_out()?;
        let host_key = Caller::of(&namespace, SSHD, SSHD).sh("cat /host_key.pub")?;
        Ok(Lab {
            namespace,
            key,
            host_key,
        })
    }

    /// The project's client, beside the node: like all others it has no program between it and the API server.
    pub fn client(&self) -> Builder<'_> {
        Client::of(&self.namespace).docker(&["--network", "kind"])
    }

    /// The command that runs the load with `words` in another network of Docker's.
    pub fn load_in(&self, network: &str, words: &[&str]) -> Command {
        app::elsewhere(&self.namespace.cluster, network, &load(words))
    }
}

/// The command line of the load.
pub fn load<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [&["python3", "-c", PROGRAM], words].concat()
}

/// A pod that runs `command`, ready when `port` answers, and has `more` containers.
fn pod(name: &str, image: &str, command: &[&str], port: u16, more: &str) -> String {
    let command = serde_json::json!(command);
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{name: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: {name}, image: '{image}', command: {command}, readinessProbe: {{tcpSocket: {{port: {port}}}, periodSeconds: 1}}}}{more}
---
"
    )
}
