//! A second Docker engine, in Docker's rootless mode.

use crate::command::{eventually, run};
use crate::manifests::repository;
use anyhow::{Result, ensure};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The engine, until it is dropped. There is one at a time.
#[derive(Debug)]
pub struct Rootless {
    directory: PathBuf,
}

/// What the engine calls the directory that both sides see.
const SHARED: &str = "/mnt/shared";

impl Rootless {
    /// Starts it, and hands it images of the engine at hand.
    pub fn start(images: &[&str]) -> Result<Rootless> {
        let directory = PathBuf::from(std::env::var("TELEPRESENCE_CACHE")?).join("rootless");
        let engine = Rootless { directory };
        run(&mut script(&["up"]))?;
        run(&mut script(&[&["load"], images].concat()))?;
        fs::create_dir(engine.directory.join("shared"))?;
        Ok(engine)
    }

    /// `docker`, of this engine.
    pub fn docker(&self, words: &[&str]) -> Command {
        let mut docker = Command::new("docker");
        let socket = self.directory.join("docker.sock");
        docker.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        docker.args(words);
        docker
    }

    /// Writes a file, and tells where containers can mount it from.
    pub fn share(&self, name: &str, text: &str) -> Result<String> {
        fs::write(self.directory.join("shared").join(name), text)?;
        Ok(format!("{SHARED}/{name}"))
    }

    /// Waits until a container's log has a line.
    pub fn logged(&self, container: &str, line: &str) -> Result<()> {
        eventually(line, || {
            let output = self.docker(&["logs", container]).output()?;
            let log = [output.stdout, output.stderr].concat();
            let log = String::from_utf8_lossy(&log);
            ensure!(log.lines().any(|said| said == line), "{log}");
            Ok(())
        })
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        // What stays, `tests/cluster/down` sees to.
        let _ = run(&mut script(&["down"]));
    }
}

fn script(words: &[&str]) -> Command {
    let mut script = Command::new(repository().join("tests/cluster/rootless"));
    script.args(words);
    script
}
