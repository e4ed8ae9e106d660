//! OpenSSH's server in a pod of its own: what the benchmarks compare with, and where the client works, too.

use crate::caller::Caller;
use crate::manifests;
use crate::namespace::Namespace;
use crate::shell::Shell;
use crate::ssh::Key;
use anyhow::Result;

/// The name of its pod.
pub const NAME: &str = "sshd";
/// Its port, one that needs no root.
pub const PORT: u16 = 2222;
/// The account that it has: the one that the client asks for.
pub const USER: &str = "telepresence";

/// Starts it, for whoever has `key`, with `options`, and returns its host key. What it does not get told is as Debian has it.
pub fn start(namespace: &Namespace, key: &Key, options: &str) -> Result<String> {
    let script = format!(
        "mkdir ~{USER}/.ssh && echo '{}' >~{USER}/.ssh/authorized_keys && ssh-keygen -q -t ed25519 -N '' -f /host_key && \
         exec /usr/sbin/sshd -D -e -p {PORT} -h /host_key -o UsePAM=no -o PasswordAuthentication=no \
         -o KbdInteractiveAuthentication=no {options}",
        key.public
    );
    namespace.apply(&manifests::pod(
        NAME,
        "telepresence-test/sshd:1",
        &["sh", "-c", &script],
        PORT,
        "",
    ))?;
    namespace.ready(&format!("pod/{NAME}"))?;
    let host_key = Caller::of(namespace, NAME, NAME).sh("cat /host_key.pub")?;
    Ok(host_key.trim_end().to_owned())
}
