//! The host names that the user has chosen a side for (`--local`, `--remote`), and how programs ask for them.

use super::resolv_conf::candidates;
use crate::config::{Destinations, Hosts};
use hickory_proto::rr::Name;

/// Some of these names, each once.
#[derive(Debug, Clone, Default)]
pub struct Chosen(Vec<Host>);

#[derive(Debug, Clone)]
struct Host {
    name: Name,
    /// Of the names that a resolver asks for, all but the name itself.
    searched: Vec<Name>,
}

/// What a question means to a chosen name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Which of the names it is, in the order of [`Chosen::names`].
    pub(crate) index: usize,
    /// Whether with a domain of the search list behind it.
    pub(crate) searched: bool,
}

impl Chosen {
    /// The names among `destinations`, where the pod's `/etc/resolv.conf` has the search list.
    pub fn among<'a>(
        destinations: impl IntoIterator<Item = &'a Destinations>,
        resolv_conf: &[u8],
    ) -> Chosen {
        let mut hosts: Vec<Host> = vec![];
        for Destinations { hosts: of, .. } in destinations {
            let Hosts::Name(name) = of else { continue };
            if hosts.iter().any(|host| host.name == *name) {
                continue;
            }
            let relative = name.to_ascii();
            let relative = relative.trim_end_matches('.');
            let mut searched: Vec<Name> = candidates(resolv_conf, relative)
                .into_iter()
                .filter_map(|candidate| Name::from_ascii(candidate).ok())
                .collect();
            searched.retain(|candidate| candidate != name);
            hosts.push(Host {
                name: name.clone(),
                searched,
            });
        }
        Chosen(hosts)
    }

    /// The names themselves.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().map(|host| &host.name)
    }

    /// The name that is asked for by `question`. A name counts before another one that has it in its search list.
    pub(crate) fn find(&self, question: &Name) -> Option<Asked> {
        let itself = self.0.iter().position(|host| host.name == *question);
        let in_domain = |host: &Host| host.searched.contains(question);
        let searched = || self.0.iter().position(in_domain);
        let asked = |index, searched| Asked { index, searched };
        itself
            .map(|index| asked(index, false))
            .or_else(|| searched().map(|index| asked(index, true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_as_it_is_and_in_the_search_list() {
        let chosen = ["db:80", "10.0.0.1", "DB", "api.example.com"].map(|of| of.parse().unwrap());
        let resolv_conf = b"search ns.svc.cluster.local example.com\noptions ndots:5\n";
        let chosen = Chosen::among(&chosen, resolv_conf);
        let names: Vec<String> = chosen.names().map(Name::to_ascii).collect();
        assert_eq!(names, ["db.", "api.example.com."]);
        let found = |index, searched| Some(Asked { index, searched });
        for (question, expected) in [
            ("db.", found(0, false)),
            ("Db.NS.svc.cluster.local.", found(0, true)),
            ("db.example.com.", found(0, true)),
            ("api.example.com.", found(1, false)),
            ("api.example.com.example.com.", found(1, true)),
            ("api.", None),
            ("x.db.", None),
            ("db.svc.cluster.local.", None),
        ] {
            let question = Name::from_ascii(question).unwrap();
            assert_eq!(chosen.find(&question), expected, "{question}");
        }
    }
}
