//! `/etc/hosts`: the pod's hostAliases, added to the container's own entries.

/// The line by which the kubelet announces them.
const MARKER: &[u8] = b"# Entries added by HostAliases.";

/// The container's `/etc/hosts`, `own`, with the host aliases in the pod's.
pub fn with_aliases(own: &[u8], pods: &[u8]) -> Vec<u8> {
    let mut text = own.to_vec();
    let lines: Vec<&[u8]> = pods.split_inclusive(|byte| *byte == b'\n').collect();
    let Some(marker) = lines.iter().position(|line| line.trim_ascii() == MARKER) else {
        return text;
    };
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    for line in lines.iter().skip(marker) {
        text.extend_from_slice(line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aliases_follow_the_containers_own_entries() {
        let pods = b"# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n198.18.1.2\tpod\n\n# Entries added by HostAliases.\n192.0.2.1\ta\tb\n192.0.2.2\tc\n";
        assert_eq!(
            with_aliases(b"127.0.0.1 localhost", pods),
            b"127.0.0.1 localhost\n# Entries added by HostAliases.\n192.0.2.1\ta\tb\n192.0.2.2\tc\n"
        );
    }

    #[test]
    fn without_aliases_nothing_changes() {
        let pods = b"# Kubernetes-managed hosts file.\n198.18.1.2\tpod\n";
        assert_eq!(
            with_aliases(b"127.0.0.1 localhost", pods),
            b"127.0.0.1 localhost"
        );
    }
}
