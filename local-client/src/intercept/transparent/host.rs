//! Telling a container's network from a machine's.

use crate::error::Error;
use std::fs;
use std::path::Path;

/// What the kernel shows of the interfaces of this network namespace (sysfs(5)).
const INTERFACES: &str = "/sys/class/net";

/// Refuses the machine's own network, where all of its connections would be redirected.
///
/// # Errors
/// [`Error::Local`] with what to do instead.
pub(crate) fn refuse() -> Result<(), Error> {
    match is_at_hand(Path::new(INTERFACES)) {
        false => Ok(()),
        true => Err(Error::Local(
            "this is the network of the whole machine, whose connections would all be redirected: start the container without \
             --network host, or use --intercept socks"
                .into(),
        )),
    }
}

/// Whether there is a device, or a bridge: a container has neither.
fn is_at_hand(interfaces: &Path) -> bool {
    // What cannot be read is no reason to refuse.
    let Ok(entries) = fs::read_dir(interfaces) else {
        return false;
    };
    entries.flatten().any(|entry| {
        ["device", "bridge"]
            .iter()
            .any(|sign| entry.path().join(sign).exists())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_or_a_bridge_tells_a_machine() {
        for (inside, expected) in [
            ("lo", false),
            ("eth0", false),
            ("ens3/device", true),
            ("docker0/bridge", true),
        ] {
            let interfaces = tempfile::tempdir().unwrap();
            fs::create_dir_all(interfaces.path().join(inside)).unwrap();
            assert_eq!(is_at_hand(interfaces.path()), expected, "{inside}");
        }
        assert!(!is_at_hand(Path::new("/nowhere")));
    }
}
