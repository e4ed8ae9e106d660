//! Which names are claimed, and which Service stands behind one.

use crate::config::Proxied;
use crate::dns::resolv_conf::Search;
use hickory_proto::rr::Name;
use std::collections::{BTreeSet, HashMap};

/// The names that get loopback addresses, if they have any address at all.
pub(super) struct Names {
    /// The domain of the Services, such as `svc.cluster.local.`.
    services: Option<Name>,
    namespace: Option<String>,
    /// The ports of --proxy by host.
    proxied: HashMap<Name, BTreeSet<u16>>,
}

/// A Service, by what stands before `svc` in its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// Its full name.
    pub(super) name: Name,
    /// The prefix of the environment variables by which the kubelet tells of it; `None` if it does not.
    pub(super) variables: Option<String>,
}

impl Names {
    pub(super) fn new(search: &Search, proxied: &[Proxied]) -> Names {
        let mut names: HashMap<Name, BTreeSet<u16>> = HashMap::new();
        for Proxied { host, port } in proxied {
            // A short name is asked for with each entry of the search list appended, as the app's resolver does.
            let full = search.entries().map(|entry| format!("{host}.{entry}"));
            for name in full
                .chain([host.clone()])
                .filter_map(|name| absolute(&name))
            {
                names.entry(name).or_default().insert(*port);
            }
        }
        Names {
            services: search.services().and_then(absolute),
            namespace: search.namespace().map(str::to_owned),
            proxied: names,
        }
    }

    /// Whether `name` is one of them.
    pub(super) fn claim(&self, name: &Name) -> bool {
        self.labels(name).is_some_and(|labels| !labels.is_empty())
            || self.proxied.contains_key(name)
    }

    /// The ports that --proxy gives for `name`.
    pub(super) fn proxied_ports(&self, name: &Name) -> impl Iterator<Item = u16> {
        self.proxied.get(name).into_iter().flatten().copied()
    }

    /// The Service that `name` is, or one of whose pods it is (`pod-0.service.namespace.svc...`).
    pub(super) fn service(&self, name: &Name) -> Option<Service> {
        let labels = self.labels(name)?;
        let [.., service, namespace] = labels.as_slice() else {
            return None;
        };
        let variables = match (service.as_str(), namespace.as_str()) {
            ("kubernetes", "default") => true,
            (_, namespace) => self.namespace.as_deref() == Some(namespace),
        };
        let full = format!("{service}.{namespace}.{}", self.services.as_ref()?);
        Some(Service {
            name: absolute(&full)?,
            variables: variables.then(|| service.to_ascii_uppercase().replace('-', "_")),
        })
    }

    /// The labels that `name` has below the domain of the Services, in lower case; `None` if it is not below it.
    fn labels(&self, name: &Name) -> Option<Vec<String>> {
        let services = self.services.as_ref()?;
        let depth = name.iter().count().checked_sub(services.iter().count())?;
        let text = |label: &[u8]| String::from_utf8_lossy(label).to_ascii_lowercase();
        services
            .zone_of(name)
            .then(|| name.iter().take(depth).map(text).collect())
    }
}

/// A name that no search list applies to.
fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let search = Search::parse(b"search ns.svc.example.org svc.example.org example.org");
        let proxied = [
            "db.cloud.example.com:5432",
            "db.cloud.example.com:5433",
            "ext:80",
        ];
        Names::new(&search, &proxied.map(|text| text.parse().unwrap()))
    }

    fn name(text: &str) -> Name {
        absolute(text).unwrap()
    }

    #[test]
    fn services_and_proxied_hosts_are_claimed() {
        for text in [
            "thing1.ns.svc.example.org",
            "THING1.NS.Svc.Example.ORG",
            "pod-0.db.other.svc.example.org",
            "db.cloud.example.com",
            "DB.cloud.example.com",
            "ext",
            "ext.example.org",
            "ext.ns.svc.example.org",
        ] {
            assert!(names().claim(&name(text)), "{text}");
        }
        for text in [
            "svc.example.org",
            "example.org",
            "thing1.ns.pod.example.org",
            "thing1.ns.svc.cluster.local",
            "cloud.example.com",
            "x.db.cloud.example.com",
            "db.cloud.example.com.ns.pod.example.org",
            ".",
        ] {
            assert!(!names().claim(&name(text)), "{text}");
        }
    }

    #[test]
    fn the_service_is_what_stands_before_svc() {
        for (text, service, variables) in [
            (
                "My-Thing.ns.svc.example.org",
                "my-thing.ns.svc.example.org",
                Some("MY_THING"),
            ),
            (
                "pod-0.db.ns.svc.example.org",
                "db.ns.svc.example.org",
                Some("DB"),
            ),
            ("db.other.svc.example.org", "db.other.svc.example.org", None),
            (
                "kubernetes.default.svc.example.org",
                "kubernetes.default.svc.example.org",
                Some("KUBERNETES"),
            ),
        ] {
            let expected = Service {
                name: name(service),
                variables: variables.map(str::to_owned),
            };
            assert_eq!(names().service(&name(text)), Some(expected), "{text}");
        }
        assert_eq!(names().service(&name("ns.svc.example.org")), None);
        assert_eq!(names().service(&name("db.cloud.example.com")), None);
    }

    #[test]
    fn proxied_ports_are_gathered_by_host() {
        let ports = |text| names().proxied_ports(&name(text)).collect::<Vec<_>>();
        assert_eq!(ports("Db.cloud.example.com"), [5432, 5433]);
        assert_eq!(ports("ext.example.org"), [80]);
        assert!(ports("other").is_empty());
    }

    #[test]
    fn without_the_clusters_dns_only_proxied_hosts_are_claimed() {
        let names = Names::new(&Search::parse(b"search lan"), &["db:1".parse().unwrap()]);
        assert!(!names.claim(&name("a.ns.svc.cluster.local")));
        assert!(names.claim(&name("db.lan")));
    }
}
