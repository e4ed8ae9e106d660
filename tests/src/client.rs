//! The client, run by `docker run -d`.

use crate::app;
use crate::cluster::Cluster;
use crate::command::{Background, eventually, run};
use crate::namespace::Namespace;
use anyhow::{Context, Result, anyhow, bail, ensure};
use bollard::models::HealthStatusEnum;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

/// The image.
pub const IMAGE: &str = "local-telepresence:latest";
/// The target that all tests use.
pub const TARGET: &str = "yourcode-deployment";
/// The option of `docker run` that transparent mode takes.
pub const ADMIN: [&str; 2] = ["--cap-add", "NET_ADMIN"];
/// The line that says that everything works.
const READY: &str = "ready";

/// A container of the client. Removed when dropped.
#[derive(Debug)]
pub struct Client {
    pub(crate) cluster: Arc<Cluster>,
    /// The container's name.
    pub name: String,
    output: TempDir,
}

/// How a client is run.
#[derive(Debug)]
pub struct Builder<'a> {
    namespace: &'a Namespace,
    docker: Vec<&'a str>,
    kubeconfig: bool,
    output: bool,
    given: bool,
}

impl<'a> Builder<'a> {
    /// Adds options of `docker run`.
    pub fn docker(mut self, options: &[&'a str]) -> Self {
        self.docker.extend(options);
        self
    }

    /// Leaves the kubeconfig out.
    pub fn without_kubeconfig(mut self) -> Self {
        self.kubeconfig = false;
        self
    }

    /// Leaves /output out.
    pub fn without_output(mut self) -> Self {
        self.output = false;
        self
    }

    /// Leaves out the kubeconfig, the target and the files' owner: `docker run` is told all that the client shall know.
    pub fn with_nothing_given(mut self) -> Self {
        self.given = false;
        self.without_kubeconfig()
    }

    /// Runs the client with `options` and the target, and does not wait for anything.
    pub fn launch(mut self, options: &[&str]) -> Result<Client> {
        self.docker.push("-d");
        let (client, mut command) = self.prepare(options)?;
        run(&mut command)?;
        Ok(client)
    }

    /// Runs the client with `options` and the target in the foreground of a terminal, and waits until it is ready.
    pub fn foreground(self, options: &[&str]) -> Result<(Client, Background)> {
        let (client, mut command) = self.prepare(options)?;
        let mut terminal = Background::start(&mut command)?;
        terminal.wait_for(READY, |line| (line == READY).then_some(()))?;
        Ok((client, terminal))
    }

    /// Runs the client with `options` and the target, and waits until it is ready.
    pub fn start(self, options: &[&str]) -> Result<Client> {
        let client = self.launch(options)?;
        client.ready()?;
        Ok(client)
    }

    /// Starts a client without options for the target, and runs a script of busybox in its network, with no more waiting than for the
    /// environment file, whose appearance means ready. Returns what the script prints.
    pub fn first_connection(self, script: &str) -> Result<String> {
        let client = self.launch(&[])?;
        let script = format!("until [ -e /output/{TARGET}.env ]; do usleep 1000; done; {script}");
        let output = format!("{}:/output:ro", client.output.path().display());
        let mut app = app::joined(&client);
        app.args(["-v", &output, "telepresence-test/busybox:1"]);
        app.args(["timeout", "60", "sh", "-c", &script]);
        run(&mut app).with_context(|| client.logs().unwrap_or_default())
    }

    fn prepare(&self, options: &[&str]) -> Result<(Client, Command)> {
        let home = self.namespace.home();
        let client = Client {
            cluster: self.namespace.cluster.clone(),
            name: self.namespace.cluster.unique(),
            output: tempfile::Builder::new()
                .prefix("output-")
                .tempdir_in(home)?,
        };
        let mut command = self.namespace.program("docker");
        command.args([
            "run",
            "--name",
            &client.name,
            "--label",
            &client.cluster.label(),
        ]);
        if self.given {
            // For `docker run --env-file`, which reads the file as the user at hand.
            command.args(["-e", &format!("TELEPRESENCE_UID={}", nix::unistd::getuid())]);
        }
        if self.output {
            command.args(["-v", &format!("{}:/output", client.output.path().display())]);
        }
        if self.kubeconfig {
            command.args([
                "-v",
                &format!("{}:/opt/.kube:ro", home.join(".kube").display()),
            ]);
        }
        command.args(&self.docker).arg(IMAGE).args(options);
        if self.given {
            command.arg(TARGET);
        }
        Ok((client, command))
    }
}

impl Client {
    /// A client for the target in `namespace`, to be started.
    pub fn of(namespace: &Namespace) -> Builder<'_> {
        Builder {
            namespace,
            docker: vec![],
            kubeconfig: true,
            output: true,
            given: true,
        }
    }

    /// Runs the client with `options` for the target in `namespace` and waits until it is ready.
    pub fn start(namespace: &Namespace, options: &[&str]) -> Result<Client> {
        Client::of(namespace).start(options)
    }

    /// The same with NET_ADMIN, and so in transparent mode.
    pub fn transparent(namespace: &Namespace, options: &[&str]) -> Result<Client> {
        Client::of(namespace).docker(&ADMIN).start(options)
    }

    /// Waits for the line that says so.
    pub fn ready(&self) -> Result<()> {
        eventually(READY, || {
            let ended = self.exit_code()?;
            let logs = self.logs()?;
            if logs.lines().any(says_ready) {
                return Ok(Ok(()));
            }
            match ended {
                Some(code) => Ok(Err(anyhow!("the client ended with {code}:\n{logs}"))),
                None => bail!("the client said so far:\n{logs}"),
            }
        })?
    }

    /// Waits for its end.
    pub fn ended(&self) -> Result<i64> {
        eventually("the client's end", || {
            self.exit_code()?.context("it still runs")
        })
    }

    /// Its exit code, once it has ended.
    pub fn exit_code(&self) -> Result<Option<i64>> {
        let state = self
            .cluster
            .docker
            .inspect(&self.name)?
            .state
            .context("a state")?;
        Ok(state.exit_code.filter(|_| state.running == Some(false)))
    }

    /// Waits until Docker takes it for healthy, or for not.
    pub fn healthy(&self, healthy: bool) -> Result<()> {
        let wanted = if healthy {
            HealthStatusEnum::HEALTHY
        } else {
            HealthStatusEnum::UNHEALTHY
        };
        eventually(&format!("{wanted:?}"), || {
            let state = self.cluster.docker.inspect(&self.name)?.state;
            let health = state
                .and_then(|state| state.health)
                .context("no HEALTHCHECK")?;
            ensure!(health.status == Some(wanted), "{health:?}");
            Ok(())
        })
    }

    /// All that it has said.
    pub fn logs(&self) -> Result<String> {
        self.cluster.docker.logs(&self.name)
    }

    /// Waits until `count` lines of its log have all the words.
    pub fn logged(&self, count: usize, words: &[&str]) -> Result<()> {
        eventually(&format!("{words:?} in the log"), || {
            let log = self.logs()?;
            let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
            ensure!(log.lines().filter(has_all).count() >= count, "{log}");
            Ok(())
        })
    }

    /// Runs `docker VERB … NAME`.
    pub fn docker(&self, words: &[&str]) -> Result<String> {
        run(Command::new("docker").args(words).arg(&self.name))
    }

    /// Its address on Docker's default network.
    pub fn address(&self) -> Result<String> {
        let format = "{{.NetworkSettings.IPAddress}}";
        Ok(self.docker(&["inspect", "-f", format])?.trim().to_owned())
    }

    /// The file for `docker run --env-file`.
    pub fn env_file(&self) -> PathBuf {
        self.output.path().join(format!("{TARGET}.env"))
    }

    /// The same as JSON.
    pub fn json_file(&self) -> PathBuf {
        self.output.path().join(format!("{TARGET}.env.json"))
    }
}

/// Whether a line of the log does, be it for people or JSON.
fn says_ready(line: &str) -> bool {
    let event: Value = serde_json::from_str(line).unwrap_or_default();
    line == READY || event["fields"]["message"] == READY
}

impl Drop for Client {
    fn drop(&mut self) {
        self.cluster.docker.dropped(&self.name);
    }
}
