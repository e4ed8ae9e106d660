//! The README's example from its first command line to its last, as printed: for the demo, which shows it, and for a test.

mod containers;
mod proofs;

pub(crate) use containers::remove_containers;

use crate::cluster::Cluster;
use crate::command::{Background, run};
use crate::manifests::{deploy, repository};
use crate::namespace::Namespace;
use crate::readme::{self, Step};
use crate::ssh::Key;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The name that the README gives the client's container.
const CLIENT: &str = "yourcode-deployment";
/// The README's image of the user's own code; only its command lines use it by this name.
const CODE: &str = "examplecom/yourcode:latest";
/// What production runs.
const PRODUCTION: &str = "examplecom/yourcode:1.0.2";

/// The user who follows the README, with all that runs in their terminals.
#[derive(Debug)]
pub struct Seed {
    namespace: Namespace,
    /// Where the commands are run.
    directory: PathBuf,
    section: String,
    client: Option<Background>,
    client_line: String,
    code: Option<Background>,
    others: Vec<Background>,
    /// What was proven, in order.
    pub proofs: Vec<&'static str>,
    /// The README names its containers: one at a time.
    _lock: File,
}

impl Seed {
    /// Follows the README to its end, or only as far as the section whose heading begins with `end`.
    pub fn play(cluster: Arc<Cluster>, end: Option<&str>) -> Result<Seed> {
        let mut seed = Seed::prepare(cluster)?;
        for step in readme::steps()? {
            if end.is_some_and(|end| step.section.starts_with(end)) {
                break;
            }
            // `make demo` is what leads here; the test looks at these.
            if !step.command.starts_with("make ") {
                seed.take(&step)
                    .inspect_err(|_| seed.show())
                    .with_context(|| step.command.clone())?;
            }
        }
        Ok(seed)
    }

    /// Everything that the README takes for granted: production in the cluster, files in a directory, a key pair.
    fn prepare(cluster: Arc<Cluster>) -> Result<Seed> {
        fs::create_dir_all(cluster.directories()?)?;
        let lock = File::create(cluster.directories()?.with_extension("lock"))?;
        lock.lock()?;
        cluster.remove_kept()?;
        remove_containers(&cluster)?;
        cluster.plays.store(true, Ordering::Relaxed);

        println!("=== Before: the example in production, three pods behind a Service");
        let namespace = Namespace::on(cluster)?.with_things()?;
        let directory = namespace.home().join("yourcode");
        fs::create_dir(&directory)?;
        for name in ["yourcode.yaml", "telepresence-deployment.yaml"] {
            fs::write(directory.join(name), deploy(name)?)?;
        }
        fs::copy(
            repository().join("tests/cluster/images/yourcode/yourcode.py"),
            directory.join("yourcode.py"),
        )?;
        Key::new(&namespace, "id_ed25519")?;
        let seed = Seed {
            namespace,
            directory,
            section: String::new(),
            client: None,
            client_line: String::new(),
            code: None,
            others: vec![],
            proofs: vec![],
            _lock: lock,
        };
        seed.home_for_ssh()?;
        run(&mut seed.bash("kubectl apply -f yourcode.yaml"))?;
        seed.in_production()?;
        Ok(seed)
    }

    /// OpenSSH looks for its files in the home directory of the password file, whatever HOME says.
    fn home_for_ssh(&self) -> Result<()> {
        let (bin, ssh) = (
            self.namespace.home().join("bin"),
            self.namespace.home().join(".ssh"),
        );
        let real = run(Command::new("sh").args(["-c", "command -v ssh"]))?;
        fs::create_dir(&bin)?;
        let wrapper = bin.join("ssh");
        fs::write(
            &wrapper,
            format!(
                "#!/bin/sh\nexec {} -F {}/config \"$@\"\n",
                real.trim_end(),
                ssh.display()
            ),
        )?;
        fs::set_permissions(&wrapper, PermissionsExt::from_mode(0o755))?;
        let ssh = ssh.display();
        let config = format!(
            "IdentityFile {ssh}/id_ed25519\nUserKnownHostsFile {ssh}/known_hosts\nStrictHostKeyChecking yes\n"
        );
        Ok(fs::write(
            self.namespace.home().join(".ssh/config"),
            config,
        )?)
    }

    /// A command line in the user's shell. The shell becomes the program, which so gets its signals.
    fn bash(&self, line: &str) -> Command {
        let mut command = self.namespace.program("bash");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env(
            "PATH",
            format!("{}/bin:{path}", self.namespace.home().display()),
        );
        command
            .current_dir(&self.directory)
            .args(["-c", &format!("exec {line}")]);
        command
    }

    fn take(&mut self, step: &Step) -> Result<()> {
        if self.section != step.section {
            self.section.clone_from(&step.section);
            println!("\n=== {}", step.section);
        }
        println!("$ {}", step.command);
        let line = step.command.as_str();
        if line.contains("local-telepresence") {
            self.run_client(line)
        } else if line.starts_with("docker run") {
            self.run_code(line)
        } else if line.starts_with("kubectl port-forward") {
            let mut forward = Background::start(&mut self.bash(line))?;
            forward.wait_for("the port", |line| {
                line.starts_with("Forwarding from").then_some(())
            })?;
            self.others.push(forward);
            Ok(())
        } else if line.starts_with("ssh ") {
            let ssh = Background::start(&mut self.bash(line))?;
            self.others.push(ssh);
            self.database_by_hand()
        } else {
            if line.starts_with("docker stop") {
                self.code = None;
            }
            let said = run(&mut self.bash(line))?;
            print!("{said}");
            if line.contains("/remote-sshd authorize") {
                // What the user compares when ssh asks.
                let known_hosts = self.namespace.home().join(".ssh/known_hosts");
                fs::write(known_hosts, format!("[localhost]:8022 {said}"))?;
            } else if line.ends_with("apply -f yourcode.yaml") {
                self.in_production()?;
                self.proven("production answers again", "yourcode-service:8080");
            }
            Ok(())
        }
    }

    fn run_client(&mut self, line: &str) -> Result<()> {
        // A user takes one of the two.
        let first = self.client.take();
        let first_line = std::mem::replace(&mut self.client_line, line.to_owned());
        if first.is_some() {
            drop(first);
            self.start_client(line)?;
            self.works_without_the_capability()?;
            self.client = None;
            println!("(the first one again)");
            return self.start_client(&first_line);
        }
        self.start_client(line)
    }

    fn start_client(&mut self, line: &str) -> Result<()> {
        let mut client = Background::start(&mut self.bash(line))?;
        client.wait_for("ready", |line| (line == "ready").then_some(()))?;
        print!("{}", client.said()?);
        self.client = Some(client);
        let file = self.directory.join(format!("{CLIENT}.env"));
        let environment = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let variable = environment
            .lines()
            .find(|line| line.starts_with("YOUR_DATABASE_HOST="));
        self.proven(
            "the environment file has the pod's variables",
            variable.context("no YOUR_DATABASE_HOST")?,
        );
        Ok(())
    }

    /// Shows what is needed to find out why a step failed.
    fn show(&self) {
        for process in [&self.client, &self.code]
            .into_iter()
            .flatten()
            .chain(&self.others)
        {
            process.show();
        }
        self.namespace.show();
    }

    /// Leaves the client and the code running for good, and says what to try.
    ///
    /// # Errors
    /// If the code does not run.
    pub fn keep(mut self) -> Result<()> {
        self.others.clear();
        let (code, directory) = (self.code_container()?, self.directory.display());
        println!(
            "\nLeft running: the proxy in the cluster, the client and your code in Docker. Try:\n\
             $ eval \"$(tests/cluster/env)\"; export KUBECONFIG={home}/.kube/config; cd {directory}\n\
             $ kubectl exec caller -- curl -sS http://yourcode-service:8080/\n\
             $ vi yourcode.py   # and ask again\n\
             $ docker exec -it {code} bash   # there are curl, dig and psql\n\
             $ docker logs -f {CLIENT}\n\
             make cluster-down, where you started, ends it all.",
            home = self.namespace.home().display(),
        );
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        self.others.clear();
        self.code = None;
        self.client = None;
        // What is left, the next run removes.
        let _ = remove_containers(&self.namespace.cluster);
    }
}
