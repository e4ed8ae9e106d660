//! Programs run as a user would run them, and waiting for what they bring about.

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything is waited for. No promise: long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(50);
/// The same, where a look costs next to nothing.
const SHORT_PAUSE: Duration = Duration::from_millis(2);

/// Tries until it succeeds; after [`PATIENCE`], the last error is the answer.
pub fn eventually<T>(what: &str, attempt: impl FnMut() -> Result<T>) -> Result<T> {
    every(PAUSE, what, attempt)
}

/// The same, with little time between the attempts: for what is timed, by attempts that cost next to nothing.
pub fn promptly<T>(what: &str, attempt: impl FnMut() -> Result<T>) -> Result<T> {
    every(SHORT_PAUSE, what, attempt)
}

fn every<T>(pause: Duration, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("waited {} s for {what}", PATIENCE.as_secs())));
            }
            Err(_) => thread::sleep(pause),
        }
    }
}

/// Runs a program to its end, whatever that is.
pub fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))
}

/// Runs a program that must succeed and returns its standard output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    checked(command, &output)
}

/// Runs a program with `input` on its standard input; see [`run`].
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let mut file = tempfile::tempfile()?;
    file.write_all(input.as_bytes())?;
    file.rewind()?;
    let output = command.stdin(file).output()?;
    checked(command, &output).with_context(|| format!("given:\n{input}"))
}

fn checked(command: &Command, output: &Output) -> Result<String> {
    ensure!(output.status.success(), "{command:?}: {}", told(output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// All that a program said at its end.
pub fn told(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{}\n{out}{err}", output.status)
}

/// A program that keeps running, as in a terminal of its own; ended as by Ctrl-C when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    line: String,
    log: File,
}

impl Background {
    /// Starts a program.
    pub fn start(command: &mut Command) -> Result<Background> {
        let log = tempfile::tempfile()?;
        let line = format!("{command:?}");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot run {line}"))?;
        Ok(Background { child, line, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it has said so far, errors among it.
    pub fn said(&self) -> Result<String> {
        let mut text = vec![0; usize::try_from(self.log.metadata()?.len())?];
        self.log.read_exact_at(&mut text, 0)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Waits for a line that `found` makes something of, while the program runs.
    pub fn wait_for<T>(&mut self, what: &str, found: impl Fn(&str) -> Option<T>) -> Result<T> {
        promptly(what, || {
            let ended = self.child.try_wait()?;
            let said = self.said()?;
            match (said.lines().find_map(&found), ended) {
                (Some(value), _) => Ok(Ok(value)),
                (None, Some(status)) => Ok(Err(anyhow!("{}: {status}\n{said}", self.line))),
                (None, None) => bail!("{} said so far:\n{said}", self.line),
            }
        })?
    }

    /// Ends it by a signal, and waits for that: SIGINT is Ctrl-C, SIGHUP a terminal that is closed.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        if self.child.try_wait()?.is_none() {
            kill(Pid::from_raw(self.child.id().cast_signed()), signal)?;
        }
        eventually("its end", || {
            self.child.try_wait()?.context("it still runs")
        })
    }

    /// Prints all that it has said.
    pub(crate) fn show(&self) {
        println!("--- {}\n{}", self.line, self.said().unwrap_or_default());
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.end(Signal::SIGINT).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            self.show();
        }
    }
}
