//! Names of this container's own surroundings: other containers on its network, and the host.

use super::chosen::Chosen;
use super::query::Query;
use crate::original::{Original, Unresolved};
use bytes::Bytes;
use hickory_proto::rr::{Name, Record};
use std::time::Duration;
use tokio::time::timeout;

/// The domain of Docker's names for the host (`host.docker.internal`) and the like.
const DOCKER: [&[u8]; 2] = [b"docker", b"internal"];

/// The response code NXDOMAIN (RFC 1035 4.1.1).
const NAME_ERROR: u8 = 3;

/// How long the container's own resolver may take for a name that the cluster does not know. Docker's answers at once; where there is
/// none but a nameserver of the network's that cannot be reached, a name that nobody knows is unknown after this time.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The same for a name that it was chosen for: a little less than the 5 seconds that programs wait (resolv.conf(5)).
const CHOSEN_TIMEOUT: Duration = Duration::from_secs(4);

/// Asks the resolver that the container had at the start: for names that the user keeps here, and for those that the cluster does not know
/// and Docker may: of one label, or below `docker.internal`.
#[derive(Clone)]
pub struct LocalNames(Option<Own>);

#[derive(Clone)]
struct Own {
    original: Original,
    unknown: bool,
    chosen: Chosen,
}

impl LocalNames {
    /// Names are asked of `original`: those of `chosen` that are kept here, and, if `unknown`, those that the cluster does not know and
    /// are none of `chosen`.
    pub fn of(original: Original, unknown: bool, chosen: Chosen) -> LocalNames {
        LocalNames(Some(Own {
            original,
            unknown,
            chosen,
        }))
    }

    /// There are none.
    pub fn none() -> LocalNames {
        LocalNames(None)
    }

    /// The answer to a `query` that the pod's nameservers are not asked; `None` if they are.
    pub(super) async fn chosen(&self, query: &Query) -> Option<Bytes> {
        let (own, question) = (self.0.as_ref()?, query.question()?);
        let asked = own
            .chosen
            .find(&question.name)
            .filter(|asked| asked.local)?;
        if asked.searched {
            // The resolver that asks goes on to the name itself.
            return query.unknown();
        }
        match found(own.original.records(question), CHOSEN_TIMEOUT).await {
            Ok(records) => query.answered(records),
            Err(Unresolved::NoSuchName) => query.unknown(),
            Err(error @ Unresolved::NoAnswer(_)) => {
                tracing::debug!("{}: {error}", question.name);
                query.failed()
            }
        }
    }

    /// The answer to `query` in place of `pods`; `None` if that stands.
    pub(super) async fn in_place(&self, query: &Query, pods: &[u8]) -> Option<Bytes> {
        let (own, question) = (self.0.as_ref()?, query.question()?);
        let asks = own.unknown && own.chosen.find(&question.name).is_none();
        if !asks || !is_unknown(pods) || !may_be_dockers(&question.name) {
            return None;
        }
        let found = found(own.original.records(question), TIMEOUT).await;
        if let Err(error @ Unresolved::NoAnswer(_)) = &found {
            tracing::debug!("{}: {error}", question.name);
        }
        query.answered(found.ok()?)
    }
}

/// What a lookup finds within `limit`.
async fn found(
    lookup: impl Future<Output = Result<Vec<Record>, Unresolved>>,
    limit: Duration,
) -> Result<Vec<Record>, Unresolved> {
    match timeout(limit, lookup).await {
        Ok(found) => found,
        Err(elapsed) => Err(Unresolved::NoAnswer(elapsed.to_string())),
    }
}

fn is_unknown(answer: &[u8]) -> bool {
    answer
        .get(3)
        .is_some_and(|flags| flags & 0x0f == NAME_ERROR)
}

fn may_be_dockers(name: &Name) -> bool {
    let labels: Vec<Vec<u8>> = name.iter().map(<[u8]>::to_ascii_lowercase).collect();
    labels.len() == 1 || labels.ends_with(&DOCKER.map(<[u8]>::to_vec))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_does_not_answer_is_left() {
        for limit in [TIMEOUT, CHOSEN_TIMEOUT] {
            let before = Instant::now();
            let found = timeout(limit * 60, found(pending(), limit)).await;
            assert!(matches!(found, Ok(Err(Unresolved::NoAnswer(_)))));
            assert_eq!(before.elapsed(), limit);
        }
    }

    #[test]
    fn dockers_names_have_one_label_or_its_domain() {
        for (name, may_be) in [
            ("db.", true),
            ("host.docker.internal.", true),
            ("Gateway.Docker.Internal.", true),
            ("db.ns.", false),
            ("docker.internal.example.", false),
            (".", false),
        ] {
            assert_eq!(
                may_be_dockers(&Name::from_ascii(name).unwrap()),
                may_be,
                "{name}"
            );
        }
    }

    #[test]
    fn only_what_the_cluster_does_not_know_is_asked_for() {
        assert!(is_unknown(&[0, 1, 0x81, 0x83, 0]));
        assert!(!is_unknown(&[0, 1, 0x81, 0x80, 0]));
        assert!(!is_unknown(&[0, 1, 0x81, 0x82, 0]));
        assert!(!is_unknown(&[]));
    }
}
