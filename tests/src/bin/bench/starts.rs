//! How long it takes from the start of a way's programs to the first byte of an answer through it.

use crate::figures::Figures;
use crate::lab::{LOAD, Lab, PORT};
use crate::ways::{self, Kind, OpenSsh, Pump};
use anyhow::{Context, Result};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use tests::command::promptly;

/// What the load echoes: a request of its, and a byte more.
const REQUEST: &str = "e00000000?";

/// Starts a way of a kind, and ends it.
pub fn measure(lab: &Lab, kind: Kind) -> Result<Figures> {
    let start = uptime()?;
    let (containers, end) = match kind {
        Kind::PortForward => {
            let forward = ways::forward(lab, LOAD, PORT)?;
            (start, first_byte(forward.port)?)
        }
        Kind::OpenSsh => {
            let ssh = OpenSsh::start(lab)?;
            (start, first_byte(ssh.port)?)
        }
        Kind::Pump => (start, first_byte(Pump::start(lab)?.port)?),
        // In the network of the client's container, which is there before the client is ready.
        Kind::Project => {
            let (containers, said) = lab.client().first_connection(&format!(
                "printf {REQUEST} | nc {LOAD} {PORT} | {{ head -c 1; cat /proc/uptime; }}"
            ))?;
            let uptime = said.strip_prefix('?').with_context(|| said.clone())?;
            (containers, seconds(uptime)?)
        }
    };
    Ok(Figures::from([
        ("start".to_owned(), end - start),
        ("start_after_containers".to_owned(), end - containers),
    ]))
}

/// Connects as soon as a port of this machine listens, and returns when the answer came.
pub fn first_byte(port: u16) -> Result<f64> {
    let mut connection = promptly("the port", || Ok(TcpStream::connect(("127.0.0.1", port))?))?;
    connection.write_all(REQUEST.as_bytes())?;
    connection.read_exact(&mut [0])?;
    uptime()
}

/// A clock that containers share, to 10 ms.
fn uptime() -> Result<f64> {
    seconds(&fs::read_to_string("/proc/uptime")?)
}

fn seconds(uptime: &str) -> Result<f64> {
    let seconds = uptime.split_whitespace().next();
    Ok(seconds.context("the format of proc(5)")?.parse()?)
}
