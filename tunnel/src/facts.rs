//! What the client learns of the remote container: the subsystem "facts" answers with one [`Facts`] and ends.

use serde::{Deserialize, Serialize};

/// The subsystem's name.
pub const SUBSYSTEM: &str = "facts";

/// What the client learns of the remote container.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Version of remote-sshd, for people.
    pub version: String,
    /// The pod's host name.
    pub hostname: String,
    /// How much may be promised to it, and so be kept there, in bytes ([`crate::credit::Budget::limit`]).
    pub budget: u64,
    /// The container's environment in its own order, byte for byte.
    pub environment: Vec<Variable>,
    /// `/etc/resolv.conf`, verbatim.
    pub resolv_conf: Blob,
    /// `/etc/hosts`, verbatim.
    pub hosts: Blob,
}

/// Shows no value of the environment: it may be printed in a log.
impl std::fmt::Debug for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts")
            .field("version", &self.version)
            .field("hostname", &self.hostname)
            .field("variables", &self.environment.len())
            .finish_non_exhaustive()
    }
}

/// One variable of the environment. Neither part needs to be UTF-8.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// What stands before the first `=`.
    pub key: Blob,
    /// What stands behind it.
    pub value: Blob,
}

/// Any bytes, in base64 where they travel.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Blob(pub Vec<u8>);

impl From<Blob> for String {
    fn from(blob: Blob) -> String {
        use base64::{Engine, prelude::BASE64_STANDARD};
        BASE64_STANDARD.encode(blob.0)
    }
}

impl TryFrom<String> for Blob {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Blob, Self::Error> {
        use base64::{Engine, prelude::BASE64_STANDARD};
        BASE64_STANDARD.decode(text).map(Blob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_text_survive() {
        let facts = Facts {
            version: "1".into(),
            hostname: "h".into(),
            budget: u64::MAX,
            environment: vec![Variable {
                key: Blob(b"K\xff".to_vec()),
                value: Blob(b"a\nb=\0".to_vec()),
            }],
            resolv_conf: Blob(vec![]),
            hosts: Blob(vec![0xfe]),
        };
        let json = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<Facts>(&json).unwrap(), facts);
        let shown = format!("{facts:?}");
        assert_eq!(
            shown,
            "Facts { version: \"1\", hostname: \"h\", variables: 1, .. }"
        );
    }
}
