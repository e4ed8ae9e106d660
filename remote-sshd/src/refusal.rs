//! What is said to people who expect a shell.

use russh::server::Session;
use russh::{ChannelId, Error};

/// The whole truth.
const SENTENCE: &str =
    "This is a telepresence proxy: it forwards ports (ssh -N -L, -R, -D, -W) and has no shell.";

/// SSH_EXTENDED_DATA_STDERR (RFC 4254 5.2).
const STDERR: u32 = 1;

/// Answers a request for a shell with one sentence and a clean end.
pub(crate) fn shell(session: &mut Session, id: ChannelId, terminal: bool) -> Result<(), Error> {
    session.channel_success(id)?;
    session.data(id, line(terminal))?;
    end(session, id, 0)
}

/// Answers a request to run a program with the same sentence, and a failure.
pub(crate) fn exec(session: &mut Session, id: ChannelId, terminal: bool) -> Result<(), Error> {
    session.channel_success(id)?;
    session.extended_data(id, STDERR, line(terminal))?;
    end(session, id, 1)
}

/// A client that asked for a terminal has put its own into raw mode.
fn line(terminal: bool) -> String {
    format!("{SENTENCE}{}", if terminal { "\r\n" } else { "\n" })
}

fn end(session: &mut Session, id: ChannelId, status: u32) -> Result<(), Error> {
    session.exit_status_request(id, status)?;
    session.eof(id)?;
    session.close(id)
}
