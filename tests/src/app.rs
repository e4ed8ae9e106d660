//! The user's own container, joined to the client's network.

use crate::client::Client;
use crate::cluster::Cluster;
use crate::command::run;
use crate::shell::Shell;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// What the user's code runs in; `examplecom/yourcode:latest` of the README is the same.
pub const IMAGE: &str = "telepresence-test/yourcode:1";

/// Options of `docker run` for those who may start code: root, a user, and one who may do nothing but run it.
pub const USERS: [&[&str]; 3] = [
    &["--user", "0"],
    &["--user", "1000:1000"],
    &[
        "--user",
        "1000",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
    ],
];

/// A container of the same image for one command, in another network of Docker's.
pub fn elsewhere(cluster: &Cluster, network: &str, command: &[&str]) -> Command {
    let mut docker = Command::new("docker");
    docker.args([
        "run",
        "--rm",
        "--network",
        network,
        "--label",
        &cluster.label(),
        IMAGE,
    ]);
    docker.args(command);
    docker
}

/// `docker run` in the client's network, to be given an image and a command.
pub fn joined(client: &Client) -> Command {
    let mut docker = Command::new("docker");
    docker.args(["run", "--rm", "--label", &client.cluster.label()]);
    docker.arg(format!("--net=container:{}", client.name));
    docker
}

/// A container that shares the client's network and has the pod's environment.
#[derive(Debug)]
pub struct App {
    cluster: Arc<Cluster>,
    /// The container's name.
    pub name: String,
}

impl App {
    /// Nothing but a place to run commands in.
    pub fn idle(client: &Client) -> Result<App> {
        App::start(client, &["sleep", "infinity"])
    }

    /// A web server at `address` (a port, or ADDRESS:PORT), whose front page is `page`.
    pub fn httpd(client: &Client, address: &str, page: &str) -> Result<App> {
        let (host, port) = address.rsplit_once(':').unwrap_or(("::", address));
        let script = format!(
            "mkdir /www && echo '{page}' >/www/index.html && exec python3 -m http.server --bind {host} --directory /www {port}"
        );
        App::start(client, &["sh", "-c", &script])
    }

    /// Runs `command`.
    pub fn start(client: &Client, command: &[&str]) -> Result<App> {
        App::of(client, IMAGE, command)
    }

    /// Runs `command` of another image.
    pub fn of(client: &Client, image: &str, command: &[&str]) -> Result<App> {
        App::by(client, &[], image, command)
    }

    /// The same by one of [`USERS`].
    pub fn by(client: &Client, user: &[&str], image: &str, command: &[&str]) -> Result<App> {
        let network = format!("--net=container:{}", client.name);
        let environment = format!("--env-file={}", client.env_file().display());
        let options = [&[network.as_str(), &environment], user].concat();
        App::run(&client.cluster, &options, image, command)
    }

    /// Runs `command` in a container of its own on a network of Docker's, where it is known by its name.
    pub fn neighbour(cluster: &Arc<Cluster>, network: &str, command: &[&str]) -> Result<App> {
        App::run(cluster, &["--network", network], IMAGE, command)
    }

    /// Runs `command` of any image, with these options of `docker run`.
    pub fn run(
        cluster: &Arc<Cluster>,
        options: &[&str],
        image: &str,
        command: &[&str],
    ) -> Result<App> {
        let (cluster, name) = (cluster.clone(), cluster.unique());
        let label = cluster.label();
        run(Command::new("docker")
            .args(["run", "-d", "--init", "--name", &name, "--label", &label])
            .args(options)
            .arg(image)
            .args(command))?;
        Ok(App { cluster, name })
    }

    /// Copies a file or a directory of this machine into it.
    pub fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let to = format!("{}:{to}", self.name);
        run(Command::new("docker").arg("cp").arg(from).arg(to)).map(drop)
    }

    /// When it was started: tells whether it was touched.
    pub fn started_at(&self) -> Result<String> {
        let state = self.cluster.docker.inspect(&self.name)?.state;
        let started_at = state.and_then(|state| state.started_at);
        Ok(format!("{:?}", started_at.context("it was never started")?))
    }

    /// All that it has said.
    pub fn log(&self) -> Result<String> {
        self.cluster.docker.logs(&self.name)
    }

    /// Ends it and starts it again.
    pub fn restart(&self) -> Result<()> {
        run(Command::new("docker").args(["restart", "-t", "1", &self.name])).map(drop)
    }
}

impl Shell for App {
    fn exec(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", &self.name]);
        command
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.cluster.docker.dropped(&self.name);
    }
}
