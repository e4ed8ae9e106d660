//! The host names that the user has chosen a side for (`--local`, `--remote`), and how programs ask for them.

use super::resolv_conf::candidates;
use crate::config::{Destinations, Hosts};
use hickory_proto::rr::Name;

/// These names, each once.
#[derive(Debug, Clone, Default)]
pub struct Chosen(Vec<Host>);

#[derive(Debug, Clone)]
struct Host {
    name: Name,
    /// What a resolver asks for when a program asks for the name.
    candidates: Vec<Name>,
    /// Whether it is kept here, be it for one port only.
    local: bool,
}

/// What a question means to chosen names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Which of the names are asked for, in the order of [`Chosen::names`].
    pub(crate) indices: Vec<usize>,
    /// Whether it is none of the names themselves, but one with a domain of the search list behind it.
    pub(crate) searched: bool,
    /// Whether one of them is kept here.
    pub(crate) local: bool,
}

impl Chosen {
    /// The names among what is kept here and what is the pod's, where the pod's `/etc/resolv.conf` has the search list.
    pub fn of(local: &[Destinations], remote: &[Destinations], resolv_conf: &[u8]) -> Chosen {
        let mut chosen = Chosen::default();
        for (all, local) in [(local, true), (remote, false)] {
            for Destinations { hosts, .. } in all {
                let Hosts::Name(name) = hosts else { continue };
                let candidates = candidates(resolv_conf, &name.to_ascii())
                    .into_iter()
                    .filter_map(|candidate| Name::from_ascii(candidate).ok());
                match chosen.position(name) {
                    Some(index) => {
                        if let Some(host) = chosen.0.get_mut(index) {
                            host.candidates.extend(candidates);
                            host.local |= local;
                        }
                    }
                    None => chosen.0.push(Host {
                        name: absolute(name),
                        candidates: candidates.collect(),
                        local,
                    }),
                }
            }
        }
        chosen
    }

    /// The names themselves, and whether they are kept here.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&Name, bool)> {
        self.0.iter().map(|host| (&host.name, host.local))
    }

    /// Which of them `name` is.
    pub(crate) fn position(&self, name: &Name) -> Option<usize> {
        let name = absolute(name);
        self.0.iter().position(|host| host.name == name)
    }

    /// The names that `question` asks for: the one that it is, or else all that have it in their search list.
    pub(crate) fn find(&self, question: &Name) -> Option<Asked> {
        let itself = self.position(question);
        let in_domain = |host: &Host| host.candidates.contains(question);
        let found: Vec<(usize, &Host)> = self
            .0
            .iter()
            .enumerate()
            .filter(|(index, host)| match itself {
                Some(itself) => *index == itself,
                None => in_domain(host),
            })
            .collect();
        (!found.is_empty()).then(|| Asked {
            indices: found.iter().map(|(index, _)| *index).collect(),
            searched: itself.is_none(),
            local: found.iter().any(|(_, host)| host.local),
        })
    }
}

fn absolute(name: &Name) -> Name {
    let mut name = name.clone();
    name.set_fqdn(true);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_as_it_is_and_in_the_search_list() {
        let of = |all: &[&str]| -> Vec<Destinations> {
            all.iter().map(|of| of.parse().unwrap()).collect()
        };
        let local = of(&["db", "10.0.0.1", "api.example.com:443", "whole."]);
        let remote = of(&["DB:80", "db.ns.svc.cluster.local", "api.example.com.ns"]);
        let resolv_conf =
            b"search ns.svc.cluster.local svc.cluster.local example.com\noptions ndots:5\n";
        let chosen = Chosen::of(&local, &remote, resolv_conf);
        let names: Vec<(String, bool)> = chosen
            .names()
            .map(|(name, local)| (name.to_ascii(), local))
            .collect();
        let expected = [
            ("db.", true),
            ("api.example.com.", true),
            ("whole.", true),
            ("db.ns.svc.cluster.local.", false),
            ("api.example.com.ns.", false),
        ];
        assert_eq!(
            names,
            expected.map(|(name, local)| (name.to_owned(), local))
        );
        let found = |indices: &[usize], searched, local| {
            Some(Asked {
                indices: indices.to_vec(),
                searched,
                local,
            })
        };
        for (question, expected) in [
            ("db.", found(&[0], false, true)),
            ("Db.svc.cluster.local.", found(&[0], true, true)),
            ("db.example.com.", found(&[0], true, true)),
            ("db.ns.svc.cluster.local.", found(&[3], false, false)),
            ("api.example.com.", found(&[1], false, true)),
            ("API.example.com.example.com.", found(&[1], true, true)),
            (
                "api.example.com.ns.svc.cluster.local.",
                found(&[1, 4], true, true),
            ),
            ("whole.", found(&[2], false, true)),
            ("whole.example.com.", None),
            ("api.", None),
            ("x.db.", None),
        ] {
            let question = Name::from_ascii(question).unwrap();
            assert_eq!(chosen.find(&question), expected, "{question}");
        }
    }
}
