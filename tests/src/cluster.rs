//! The cluster at hand, and what runs of the tests leave behind in it and on the Docker engine.

use crate::command::run;
use crate::docker::Docker;
use crate::seed;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use tokio::signal::unix::{SignalKind, signal};

/// The label of everything that is started, on containers and on namespaces; its value is the owner.
pub const LABEL: &str = "telepresence-test";
/// The owner of what stays when its process has ended.
const KEPT: &str = "kept";

/// The cluster that `tests/cluster/up` made, with the Docker engine it runs on.
#[derive(Debug)]
pub struct Cluster {
    /// The engine.
    pub docker: Docker,
    /// Whether this process plays the README's example, whose containers bear no label.
    pub(crate) plays: AtomicBool,
    home: PathBuf,
    process: String,
    owner: String,
}

impl Cluster {
    /// The cluster that the environment names. Removes what dead runs left behind; from now on, so does the end of this one
    /// by a signal.
    pub fn at_hand() -> Result<Arc<Cluster>> {
        Cluster::owned(identity(std::process::id())?)
    }

    /// The same, for what shall stay when this process has ended.
    pub fn kept() -> Result<Arc<Cluster>> {
        Cluster::owned(KEPT.into())
    }

    fn owned(owner: String) -> Result<Arc<Cluster>> {
        let home = std::env::var_os("TELEPRESENCE_HOME").map(PathBuf::from);
        let home = home.filter(|home| home.join(".kube/config").exists());
        let cluster = Arc::new(Cluster {
            docker: Docker::connect()?,
            plays: AtomicBool::new(false),
            home: home
                .context("no cluster: tests/cluster/up, then eval \"$(tests/cluster/env)\"")?,
            process: identity(std::process::id())?,
            owner,
        });
        cluster.remove(|owner| owner != KEPT && !lives(owner))?;
        cluster.remove_at_signals()?;
        Ok(cluster)
    }

    /// Removes what [`Cluster::kept`] left.
    pub fn remove_kept(&self) -> Result<()> {
        self.remove(|owner| owner == KEPT)
    }

    /// The directory that is HOME to the cluster's own kubeconfig.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// `telepresence-test=OWNER`, for what this process starts.
    pub fn label(&self) -> String {
        format!("{LABEL}={}", self.owner)
    }

    /// A name that nothing else has.
    pub fn unique(&self) -> String {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        format!("test-{}-{number}", self.process)
    }

    /// A directory for this process's files, where Docker can mount them from.
    pub fn directory(&self) -> Result<PathBuf> {
        let directory = self.directories()?.join(&self.owner);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// Of all owners: beside the cluster's own home, and so gone with the cluster.
    pub(crate) fn directories(&self) -> Result<PathBuf> {
        Ok(self
            .home
            .parent()
            .context("a home has a parent")?
            .join("tests"))
    }

    /// Runs `kubectl LINE` outside of any test's namespace.
    fn kubectl(&self, line: &str) -> Result<String> {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", self.home.join(".kube/config"));
        run(command.args(line.split_whitespace()))
    }

    /// The address of Docker's default bridge, where containers on it reach the host.
    pub fn bridge(&self) -> Result<String> {
        let format = "{{(index .IPAM.Config 0).Gateway}}";
        let gateway =
            run(Command::new("docker").args(["network", "inspect", "bridge", "-f", format]))?;
        let gateway = gateway.trim();
        // Docker leaves it out where it chose the range itself.
        Ok(if gateway.is_empty() {
            "172.17.0.1".into()
        } else {
            gateway.into()
        })
    }

    /// Removes all that belongs to the owners that `whose` picks.
    fn remove(&self, whose: impl Fn(&str) -> bool) -> Result<()> {
        for container in self.docker.containers(Some(LABEL))? {
            let owner = container
                .labels
                .as_ref()
                .and_then(|labels| labels.get(LABEL));
            if let (Some(id), Some(owner)) = (&container.id, owner)
                && whose(owner)
            {
                self.docker.remove(id);
            }
        }
        let query = format!("jsonpath={{.items[*].metadata.labels.{LABEL}}}");
        let owners = self.kubectl(&format!("get namespaces -l {LABEL} -o {query}"))?;
        for owner in owners.split_whitespace().collect::<BTreeSet<_>>() {
            if whose(owner) {
                self.kubectl(&format!(
                    "delete namespaces --wait=false -l {LABEL}={owner}"
                ))?;
            }
        }
        for entry in fs::read_dir(self.directories()?)
            .into_iter()
            .flatten()
            .flatten()
        {
            if whose(&entry.file_name().to_string_lossy()) {
                // Another process may be about to remove it, too.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    /// From now on, SIGINT and SIGTERM end this process as they do any other, but leave nothing of it behind.
    fn remove_at_signals(self: &Arc<Cluster>) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut interrupt, mut terminate) = {
            let _context = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            )
        };
        let cluster = Arc::downgrade(self);
        thread::spawn(move || {
            let signal = runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => SignalKind::interrupt(),
                    _ = terminate.recv() => SignalKind::terminate(),
                }
            });
            if let Some(cluster) = cluster.upgrade() {
                // Whatever could not be removed now, the next run will.
                if cluster.plays.load(Ordering::Relaxed) {
                    let _ = seed::remove_containers(&cluster);
                }
                let _ = cluster.remove(|owner| owner == cluster.owner);
            }
            std::process::exit(128 + signal.as_raw_value());
        });
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The containers and namespaces in it have gone with their values.
        if let Ok(directories) = self.directories() {
            let _ = fs::remove_dir_all(directories.join(&self.owner));
        }
    }
}

/// Tells a process from all others, past and to come: its id and start time.
fn identity(pid: u32) -> Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name, in parentheses, may have anything in it (proc(5)).
    let (_, fields) = stat.rsplit_once(')').context("the format of proc(5)")?;
    let started = fields
        .split_whitespace()
        .nth(19)
        .context("field 22 of proc(5)")?;
    Ok(format!("{pid}-{started}"))
}

fn lives(owner: &str) -> bool {
    let alive = || {
        let (pid, _) = owner.split_once('-').context("PID-START")?;
        ensure!(identity(pid.parse()?)? == owner);
        anyhow::Ok(())
    };
    alive().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_told_from_dead_ones() {
        let me = identity(std::process::id()).unwrap();
        assert!(lives(&me));
        assert!(!lives(&format!("{me}0")));
        assert!(!lives("0-0") && !lives("x"));
    }
}
