//! How long it takes from the start of a way's programs to the first byte of an answer through it.

use crate::figures::Figures;
use crate::lab::{LOAD, Lab, PORT};
use crate::ways::{self, Kind, OpenSsh, Pump};
use anyhow::{Context, Result, ensure};
use std::any::Any;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use tests::app;
use tests::client::TARGET;
use tests::command::{Background, promptly, run};
use tests::shell::Shell;

/// What the load echoes: a request of its, and a byte more.
const REQUEST: &str = "e00000000?";

/// Starts a way of a kind, and ends it: once with a program, once with a container that connects as soon as the way is there.
pub fn measure(lab: &Lab, kind: Kind) -> Result<Figures> {
    let start = uptime()?;
    let program = match listener(lab, kind)? {
        Some((port, _open)) => first_byte(port)? - start,
        None => project_in_place(lab)?,
    };
    let start = uptime()?;
    let container = match listener(lab, kind)? {
        Some((port, _open)) => {
            connect(port)?;
            let code = ["bash", "-c", &code("127.0.0.1", port)];
            answered(&run(&mut app::elsewhere(
                &lab.namespace.cluster,
                "host",
                &code,
            ))?)?
        }
        None => project(lab)?,
    };
    Ok(Figures::from([
        ("start".to_owned(), program),
        ("start_container".to_owned(), container - start),
    ]))
}

/// A way that begins at a port of this machine, which may not listen yet, and what keeps it open. `None` for a way that does not.
fn listener(lab: &Lab, kind: Kind) -> Result<Option<(u16, Box<dyn Any>)>> {
    Ok(match kind {
        Kind::Project => None,
        Kind::PortForward => {
            let forward = ways::forward(lab, LOAD, ways::LOOPBACK, PORT)?;
            Some((forward.port, Box::new(forward)))
        }
        Kind::OpenSsh => {
            let ssh = OpenSsh::start(lab)?;
            Some((ssh.port, Box::new(ssh)))
        }
        Kind::Pump => {
            let pump = Pump::start(lab)?;
            Some((pump.port, Box::new(pump)))
        }
    })
}

/// From the start of the client as a program, in a container that was there before, to the first byte in that container.
fn project_in_place(lab: &Lab) -> Result<f64> {
    let place = lab.place()?;
    let start = uptime()?;
    let client = Background::start(place.exec().args(["/local-client", TARGET]))?;
    let said = place.sh(&format!(
        "until [ -e /output/{TARGET}.env ]; do sleep 0.001; done; bash -c '{}'",
        code(LOAD, PORT)
    ));
    let said = said.with_context(|| client.said().unwrap_or_default())?;
    Ok(answered(&said)? - start)
}

/// When a container had the first byte that was started, as the README has it, once the environment file was there.
fn project(lab: &Lab) -> Result<f64> {
    let client = lab.client().launch(&[])?;
    let file = client.env_file();
    promptly("the environment file", || {
        ensure!(Path::exists(&file), client.logs()?);
        Ok(())
    })?;
    let mut container = app::joined(&client);
    container.arg("--env-file").arg(file);
    container.args([app::IMAGE, "bash", "-c", &code(LOAD, PORT)]);
    answered(&run(&mut container)?)
}

/// A script of bash that has the answer's first byte, and prints it and the time.
fn code(host: &str, port: u16) -> String {
    format!("exec 3<>/dev/tcp/{host}/{port}; printf {REQUEST} >&3; head -c 1 <&3; cat /proc/uptime")
}

/// The time that the script printed.
fn answered(said: &str) -> Result<f64> {
    seconds(said.strip_prefix('?').with_context(|| said.to_owned())?)
}

/// Connects as soon as a port of this machine listens, and returns when the answer came.
pub fn first_byte(port: u16) -> Result<f64> {
    let mut connection = connect(port)?;
    connection.write_all(REQUEST.as_bytes())?;
    connection.read_exact(&mut [0])?;
    uptime()
}

fn connect(port: u16) -> Result<TcpStream> {
    promptly("the port", || Ok(TcpStream::connect(("127.0.0.1", port))?))
}

/// A clock that containers share, to 10 ms.
fn uptime() -> Result<f64> {
    seconds(&fs::read_to_string("/proc/uptime")?)
}

fn seconds(uptime: &str) -> Result<f64> {
    let seconds = uptime.split_whitespace().next();
    Ok(seconds.context("the format of proc(5)")?.parse()?)
}
