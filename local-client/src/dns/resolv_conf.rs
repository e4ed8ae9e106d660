//! `/etc/resolv.conf` (resolv.conf(5)): the pod's, but for the nameserver.

use std::net::IpAddr;

/// The pod's `/etc/resolv.conf` with `nameserver` as its only nameserver. Everything else stays as it is: search list,
/// options, comments.
pub fn with_nameserver(pods: &[u8], nameserver: IpAddr) -> Vec<u8> {
    let mut text = format!("nameserver {nameserver}\n").into_bytes();
    for line in lines(pods).filter(|line| keyword(line) != Some(b"nameserver")) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text
}

/// The nameservers of a `/etc/resolv.conf`, in their order.
pub fn nameservers(text: &[u8]) -> Vec<IpAddr> {
    lines(text)
        .filter(|line| keyword(line) == Some(b"nameserver"))
        .filter_map(|line| {
            let line = String::from_utf8_lossy(line);
            line.split_ascii_whitespace().nth(1)?.parse().ok()
        })
        .collect()
}

/// The names that a resolver asks for when a program asks for `host`, in their order, each with a trailing dot.
pub fn candidates(text: &[u8], host: &str) -> Vec<String> {
    if let Some(absolute) = host.strip_suffix('.') {
        return vec![format!("{absolute}.")];
    }
    let own = format!("{host}.");
    let mut names: Vec<String> = Search::parse(text)
        .entries()
        .map(|entry| format!("{host}.{entry}."))
        .collect();
    match host.matches('.').count() >= ndots(text) {
        true => names.insert(0, own),
        false => names.push(own),
    }
    names
}

/// How many dots a name has that is asked for as it is first: the last `ndots` counts.
fn ndots(text: &[u8]) -> usize {
    const DEFAULT: usize = 1;
    const MOST: usize = 15;
    let options = lines(text).filter(|line| keyword(line) == Some(b"options"));
    let numbers = options.flat_map(|line| {
        let line = String::from_utf8_lossy(line).into_owned();
        let words = line.split_ascii_whitespace();
        let ndots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
        ndots.collect::<Vec<usize>>()
    });
    numbers.last().unwrap_or(DEFAULT).min(MOST)
}

/// The search list of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search(Vec<String>);

impl Search {
    /// Reads the search list of a `/etc/resolv.conf`. The last `search` or `domain` counts, as with every resolver.
    pub fn parse(text: &[u8]) -> Search {
        let last = lines(text)
            .filter(|line| matches!(keyword(line), Some(b"search" | b"domain")))
            .last()
            .unwrap_or_default();
        let entries = String::from_utf8_lossy(last)
            .split_ascii_whitespace()
            .skip(1)
            .map(|entry| entry.trim_end_matches('.').to_ascii_lowercase())
            .filter(|entry| !entry.is_empty())
            .collect();
        Search(entries)
    }

    /// The entries in lower case, without trailing dots.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The domain below which the cluster's Services are, such as `svc.cluster.local`. `None` where the pod does not use
    /// the cluster's DNS.
    pub fn services(&self) -> Option<&str> {
        // The shortest, as a namespace may be called "svc", too.
        self.entries()
            .filter(|entry| entry.starts_with("svc."))
            .min_by_key(|entry| entry.len())
    }

    /// The pod's namespace.
    pub fn namespace(&self) -> Option<&str> {
        let services = self.services()?;
        self.entries().find_map(|entry| {
            let namespace = entry.strip_suffix(services)?.strip_suffix('.')?;
            (!namespace.is_empty() && !namespace.contains('.')).then_some(namespace)
        })
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|byte| *byte == b'\n')
}

/// The first word of a line; a comment's is its `#` or `;` and what clings to it.
fn keyword(line: &[u8]) -> Option<&[u8]> {
    line.split(u8::is_ascii_whitespace)
        .find(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const SHIM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn rendered(text: &[u8]) -> String {
        String::from_utf8(with_nameserver(text, SHIM)).unwrap()
    }

    #[test]
    fn all_but_the_nameservers_stays() {
        let pods = b"search a.svc.cluster.local svc.cluster.local cluster.local\n# nameserver 1.2.3.4\nnameserver 198.18.0.10\n\tnameserver\tfd00::a\noptions ndots:5  timeout:1 \n; end";
        assert_eq!(
            rendered(pods),
            "nameserver 127.0.0.1\nsearch a.svc.cluster.local svc.cluster.local cluster.local\n# nameserver 1.2.3.4\noptions ndots:5  timeout:1 \n; end\n"
        );
    }

    #[test]
    fn the_search_list_goes_by_ndots() {
        let text = b"search a.svc b.\noptions ndots:5\noptions timeout:1 ndots:2\n";
        assert_eq!(candidates(text, "x"), ["x.a.svc.", "x.b.", "x."]);
        assert_eq!(
            candidates(text, "x.y.z"),
            ["x.y.z.", "x.y.z.a.svc.", "x.y.z.b."]
        );
        assert_eq!(candidates(text, "x."), ["x."]);
        assert_eq!(candidates(b"", "x"), ["x."]);
        assert_eq!(candidates(b"search s\n", "x.y"), ["x.y.", "x.y.s."]);
    }

    #[test]
    fn odd_files_keep_their_bytes() {
        assert_eq!(
            rendered(b"nameservers x\n"),
            "nameserver 127.0.0.1\nnameservers x\n"
        );
        assert_eq!(
            rendered(b"options a\n\n"),
            "nameserver 127.0.0.1\noptions a\n\n"
        );
        let bytes = with_nameserver(b"# \xff\n", SHIM);
        assert_eq!(bytes, b"nameserver 127.0.0.1\n# \xff\n");
    }

    #[test]
    fn nameservers_are_those_that_count() {
        let text = b"# nameserver 1.2.3.4\nnameserver 198.18.0.10\n\tnameserver\tfd00::a  \nnameserver\nnameserver x\nnameserver \xff\n";
        let addresses: Vec<IpAddr> = ["198.18.0.10", "fd00::a"]
            .map(|a| a.parse().unwrap())
            .into();
        assert_eq!(nameservers(text), addresses);
        assert_eq!(nameservers(b""), [] as [IpAddr; 0]);
    }

    #[test]
    fn the_search_list_tells_domain_and_namespace() {
        for (text, services, namespace) in [
            ("search a.svc.x.y svc.x.y x.y", Some("svc.x.y"), Some("a")),
            ("search SVC.X.Y. A.svc.x.y", Some("svc.x.y"), Some("a")),
            ("search svc.svc.x svc.x x", Some("svc.x"), Some("svc")),
            ("search lan\nsearch b.svc.x svc.x", Some("svc.x"), Some("b")),
            ("search b.svc.x svc.x\ndomain lan", None, None),
            ("search svc.x", Some("svc.x"), None),
            ("#search svc.x", None, None),
            ("", None, None),
        ] {
            let search = Search::parse(text.as_bytes());
            assert_eq!(search.services(), services, "{text}");
            assert_eq!(search.namespace(), namespace, "{text}");
        }
    }
}
