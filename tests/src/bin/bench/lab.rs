//! What all ways lead to: the load's server in a pod. Beside it is what they lead through.

use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use tests::app::{self, App};
use tests::client::{self, Builder, Client};
use tests::cluster::Cluster;
use tests::command::run;
use tests::manifests;
use tests::namespace::Namespace;
use tests::shell::Shell;
use tests::ssh::Key;
use tests::sshd;

/// The name of the load's pod and Service.
pub const LOAD: &str = "load";
/// The load's port.
pub const PORT: u16 = 9000;
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
    /// The project's client as a program of this machine.
    pub program: PathBuf,
}

impl Lab {
    pub fn new(cluster: Arc<Cluster>) -> Result<Lab> {
        let namespace = Namespace::on(cluster)?.with_target()?;
        // The node itself: a container on the default bridge would reach what Docker publishes through a program of Docker's, and
        // those that run on this machine would not.
        let node = namespace.node_address()?;
        let name = namespace.kubectl("config view --minify -o jsonpath={.clusters[0].name}")?;
        namespace.kubectl(&format!(
            "config set-cluster {name} --server=https://{node}:6443"
        ))?;
        let key = Key::new(&namespace, "bench")?;
        namespace.apply(&format!(
            "{}{}",
            manifests::service_for(LOAD, PORT, LOAD, PORT),
            manifests::pod(
                LOAD,
                app::IMAGE,
                &load(&["serve", &PORT.to_string()]),
                PORT,
                DOOR
            ),
        ))?;
        let host_key = sshd::start(&namespace, &key, "")?;
        namespace.ready(&format!("pod/{LOAD}"))?;
        namespace.rolled_out()?;
        let program = namespace.home().join("local-client");
        let docker = || Command::new("docker");
        let never_run = run(docker().args(["create", client::IMAGE]))?;
        let inside = format!("{}:/local-client", never_run.trim());
        run(docker().args(["cp", &inside]).arg(&program))?;
        run(docker().args(["rm", never_run.trim()]))?;
        Ok(Lab {
            namespace,
            key,
            host_key,
            program,
        })
    }

    /// The project's client, beside the node: like all others it has no program between it and the API server.
    pub fn client(&self) -> Builder<'_> {
        Client::of(&self.namespace).docker(&["--network", "kind"])
    }

    /// A container beside the node that has all that the client as a program of its needs.
    pub fn place(&self) -> Result<App> {
        let place = App::neighbour(&self.namespace.cluster, "kind", &["sleep", "infinity"])?;
        place.sh("mkdir /output")?;
        place.copy(&self.program, "/")?;
        place.copy(&self.namespace.home().join(".kube"), "/opt/")?;
        Ok(place)
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
