//! `/etc/hosts`: the pod's hostAliases, added to the container's own entries.

use std::net::IpAddr;

/// The line by which the kubelet announces them.
const MARKER: &[u8] = b"# Entries added by HostAliases.";

/// The container's `/etc/hosts`, `own`, with the host aliases in the pod's.
pub fn with_aliases(own: &[u8], pods: &[u8]) -> Vec<u8> {
    let mut text = own.to_vec();
    let mut lines = alias_lines(pods).peekable();
    if lines.peek().is_some() && text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    for line in lines {
        text.extend_from_slice(line);
    }
    text
}

/// The addresses of the host aliases in the pod's `/etc/hosts`.
pub fn aliases(pods: &[u8]) -> impl Iterator<Item = IpAddr> {
    alias_lines(pods).filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        line.split_ascii_whitespace().next()?.parse().ok()
    })
}

/// The addresses that a `/etc/hosts` has for `host`.
pub fn addresses(text: &[u8], host: &str) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(text).into_owned();
    let host = host.strip_suffix('.').unwrap_or(host);
    let of_line = |line: &str| {
        let line = line.split('#').next()?;
        let mut words = line.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|name| name.eq_ignore_ascii_case(host))
            .then_some(address)
    };
    text.lines().filter_map(of_line).collect()
}

/// The marker, and what follows it.
fn alias_lines(pods: &[u8]) -> impl Iterator<Item = &[u8]> {
    pods.split_inclusive(|byte| *byte == b'\n')
        .skip_while(|line| line.trim_ascii() != MARKER)
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
    fn names_have_the_addresses_of_their_lines() {
        let text = b"127.0.0.1 localhost\n192.0.2.1 a B.c # d\nfd00::1 a\n# 192.0.2.2 a\nodd a\n";
        let of = |host: &str| {
            addresses(text, host)
                .iter()
                .map(IpAddr::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(of("A."), ["192.0.2.1", "fd00::1"]);
        assert_eq!(of("b.C"), ["192.0.2.1"]);
        assert!(of("d").is_empty());
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
