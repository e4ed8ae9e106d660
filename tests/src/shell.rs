//! Places where commands are run: the user's container on the laptop, and a pod of the cluster.

use crate::command::output;
use anyhow::{Result, ensure};
use std::process::{Command, Output};

/// A place where commands are run. It has sh, curl, dig, getent, ping, psql and python3.
pub trait Shell {
    /// The command that runs the words which are appended to it.
    fn exec(&self) -> Command;

    /// Runs a script to its end, whatever that is.
    fn try_sh(&self, script: &str) -> Result<Output> {
        output(self.exec().args(["sh", "-c", script]))
    }

    /// Runs a script that must succeed, and returns what it prints, without the last line's end.
    fn sh(&self, script: &str) -> Result<String> {
        let output = self.try_sh(script)?;
        ensure!(
            output.status.success(),
            "{script}: {}",
            crate::command::told(&output)
        );
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.trim_end_matches('\n').to_owned())
    }

    /// The body of a web page.
    fn get(&self, url: &str) -> Result<String> {
        self.sh(&format!("curl -sS --fail --max-time 10 '{url}'"))
    }

    /// What becomes of a TCP connection that says nothing: `connected` as soon as it is, and the error's name in Python. (Unread
    /// words would make a reset of any end.)
    fn connection(&self, host: &str, port: u16) -> Result<String> {
        let script = format!(
            "import socket
try:
    s = socket.create_connection((\"{host}\", {port}), 30)
    print(\"connected\", end=\" \")
    print(s.recv(1) or \"an orderly end\")
except OSError as error:
    print(type(error).__name__)"
        );
        self.sh(&format!("python3 -c '{script}'"))
    }
}

/// Of [`Shell::connection`]: it was reset. That may come so soon that the program, which waits to be connected, hears of both at once.
pub fn assert_reset(end: &str) {
    let ends = ["connected ConnectionResetError", "ConnectionResetError"];
    assert!(ends.contains(&end), "{end}");
}
