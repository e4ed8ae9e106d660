//! Names of this container's own surroundings: other containers on its network, and the host.

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

/// How long the container's own resolver may take. Docker's answers at once; where there is none but a nameserver of the network's that
/// cannot be reached, a name that nobody knows is unknown after this time.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Asks the resolver that the container had at the start, for names that the cluster does not know, and only for those that
/// Docker gives: of one label, or below `docker.internal`.
#[derive(Clone)]
pub struct LocalNames(Option<Original>);

impl LocalNames {
    /// Names are asked of `original`.
    pub fn of(original: Original) -> LocalNames {
        LocalNames(Some(original))
    }

    /// There are none.
    pub fn none() -> LocalNames {
        LocalNames(None)
    }

    /// The answer to `query` in place of `pods`; `None` if that stands.
    pub(super) async fn answer(&self, query: &Query, pods: &[u8]) -> Option<Bytes> {
        let (original, question) = (self.0.as_ref()?, query.question()?);
        if !is_unknown(pods) || !may_be_dockers(&question.name) {
            return None;
        }
        let found = found(original.records(question)).await;
        if let Err(error @ Unresolved::NoAnswer(_)) = &found {
            tracing::debug!("{}: {error}", question.name);
        }
        query.answered(found.ok()?)
    }
}

/// What a lookup finds, within [`TIMEOUT`].
async fn found(
    lookup: impl Future<Output = Result<Vec<Record>, Unresolved>>,
) -> Result<Vec<Record>, Unresolved> {
    match timeout(TIMEOUT, lookup).await {
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
        let before = Instant::now();
        let found = timeout(TIMEOUT * 60, found(pending())).await;
        assert!(matches!(found, Ok(Err(Unresolved::NoAnswer(_)))));
        assert_eq!(before.elapsed(), TIMEOUT);
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
