//! The program itself, in a process of its own.

use crate::harness::{free_port, soon};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

pub const PATH: &str = env!("CARGO_BIN_EXE_remote-sshd");

/// A running server; killed with the test.
pub struct Program {
    pub port: u16,
    pub host_key: String,
    pub child: Child,
    pub log: Lines<BufReader<ChildStderr>>,
    /// What was logged up to the start.
    pub said: Vec<String>,
}

/// The program, not started yet, with nothing of the test's environment.
pub fn command(port: u16) -> Command {
    command_of(PATH.into(), port)
}

pub fn command_of(path: PathBuf, port: u16) -> Command {
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("TELEPRESENCE_SSH_PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Program {
    pub async fn start(environment: &[(&str, &str)]) -> Program {
        let port = free_port().await;
        let mut command = command(port);
        command.envs(environment.iter().copied());
        Program::started(command, port).await
    }

    pub async fn started(mut command: Command, port: u16) -> Program {
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut said, mut host_key) = (vec![], None);
        loop {
            let line = soon(log.next_line()).await.unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended:\n{}", said.join("\n")));
            if let Some((_, key)) = line.split_once("host key ") {
                host_key = Some(key.to_owned());
            }
            let started = line.contains("listening on");
            said.push(line);
            if started {
                break;
            }
        }
        Program {
            port,
            host_key: host_key.expect("the host key is logged"),
            child,
            log,
            said,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Memory in use.
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub async fn authorize(&self, key: &str) -> Output {
        let mut authorize = command(self.port);
        soon(authorize.args(["authorize", key]).output())
            .await
            .unwrap()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.pid().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for the end; returns the exit code and what else was logged.
    pub async fn end(mut self) -> (Option<i32>, Vec<String>) {
        let mut said = vec![];
        while let Some(line) = soon(self.log.next_line()).await.unwrap() {
            said.push(line);
        }
        (soon(self.child.wait()).await.unwrap().code(), said)
    }
}
