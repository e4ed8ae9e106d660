//! Keys in OpenSSH's format: one line of `authorized_keys` (sshd(8), AUTHORIZED_KEYS FILE FORMAT), options left out.

use russh::keys::{Algorithm, PublicKey};
use std::io;
use thiserror::Error;

/// Longest line that is looked at, in bytes. The largest key accepted (ECDSA, 521 bits) takes 250.
pub const LONGEST_LINE: usize = 8 << 10;

/// Why a line is not a key that may enter. Nothing of the line is repeated: it may be a private key, pasted by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadKey {
    /// Options before the key (`from=`, `command=`, …) would restrict it, which is not done here.
    #[error("options before the key are not supported: leave the key alone on its line")]
    Options,
    /// The server cannot verify signatures of such a key.
    #[error("the key is neither ed25519 nor ecdsa (ssh-keygen -t ed25519 makes one that is)")]
    Algorithm,
    /// Not a line of authorized_keys.
    #[error("not a public key in OpenSSH's format (ssh-ed25519 AAAA… comment)")]
    Malformed,
}

/// Reads one key.
///
/// # Errors
/// See [`BadKey`].
pub fn parse_line(line: &str) -> Result<PublicKey, BadKey> {
    if line.len() > LONGEST_LINE {
        return Err(BadKey::Malformed);
    }
    let mut words = line.split_whitespace();
    let algorithm = words.next().ok_or(BadKey::Malformed)?;
    match Algorithm::new(algorithm) {
        Ok(Algorithm::Ed25519 | Algorithm::Ecdsa { .. }) => {}
        _ if is_algorithm(algorithm) => return Err(BadKey::Algorithm),
        _ if words.any(is_algorithm) => return Err(BadKey::Options),
        _ => return Err(BadKey::Malformed),
    }
    let data = words.next().ok_or(BadKey::Malformed)?;
    let comment: Vec<&str> = words.collect();
    let line = format!("{algorithm} {data} {}", comment.join(" "));
    PublicKey::from_openssh(line.trim_end()).map_err(|_| BadKey::Malformed)
}

fn is_algorithm(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .any(|prefix| word.starts_with(prefix))
}

/// The keys of a whole text, and what is wrong with which line (counted from 1).
#[derive(Debug, Default)]
pub struct AuthorizedKeys {
    /// The keys that may enter.
    pub keys: Vec<PublicKey>,
    /// The lines that are not taken.
    pub bad: Vec<(usize, BadKey)>,
}

impl AuthorizedKeys {
    /// Reads a text. Empty lines and those that start with `#` say nothing.
    pub fn parse(text: &str) -> AuthorizedKeys {
        let mut all = AuthorizedKeys::default();
        let lines = text
            .lines()
            .enumerate()
            .map(|(n, line)| (n + 1, line.trim()));
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            match parse_line(line) {
                Ok(key) => all.keys.push(key),
                Err(error) => all.bad.push((number, error)),
            }
        }
        all
    }

    /// Reads what the environment variable says: a text, or the path of a file if it starts with "/".
    ///
    /// # Errors
    /// That the file cannot be read.
    pub fn load(value: &str) -> io::Result<AuthorizedKeys> {
        if value.starts_with('/') {
            std::fs::read_to_string(value.trim_end()).map(|text| AuthorizedKeys::parse(&text))
        } else {
            Ok(AuthorizedKeys::parse(value))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcBBnj8dQcBHWFrqMdXFTPFz7BNAfCoAT9x2bHmEEeM";
    const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDJ me@laptop";

    #[test]
    fn keys_are_taken_with_their_comments() {
        let text = format!("# team\n\n  {ED25519}  Jane  Doe \r\n\t{ED25519}\n");
        let all = AuthorizedKeys::parse(&text);
        assert_eq!(all.bad, []);
        let comments: Vec<_> = all.keys.iter().map(|k| k.comment().to_string()).collect();
        assert_eq!(comments, ["Jane Doe", ""]);
    }

    #[test]
    fn what_cannot_be_taken_is_told_by_line() {
        let text = format!(
            "from=\"10.0.0.0/8\" {ED25519} x\n# c\ncommand=\"a b\",no-pty {ED25519}\n{RSA}\nssh-ed25519\nssh-ed25519 AAAA\nhello world\n{}",
            "a".repeat(LONGEST_LINE + 1)
        );
        let all = AuthorizedKeys::parse(&text);
        assert!(all.keys.is_empty());
        use BadKey::{Algorithm, Malformed, Options};
        assert_eq!(
            all.bad,
            [
                (1, Options),
                (3, Options),
                (4, Algorithm),
                (5, Malformed),
                (6, Malformed),
                (7, Malformed),
                (8, Malformed)
            ]
        );
    }

    #[test]
    fn a_path_is_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{ED25519} file").unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(AuthorizedKeys::load(path).unwrap().keys.len(), 1);
        assert!(AuthorizedKeys::load("/nonexistent/keys").is_err());
        assert_eq!(AuthorizedKeys::load("").unwrap().keys.len(), 0);
    }
}
