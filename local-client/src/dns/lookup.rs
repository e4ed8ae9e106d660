//! The client's own questions to the pod's nameservers.

use crate::pod::{DnsError, Pod};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use thiserror::Error;

/// Why a question of our own has no answer.
#[derive(Debug, Error)]
pub(crate) enum LookupError {
    /// None came.
    #[error(transparent)]
    Unanswered(#[from] DnsError),
    /// The nameserver failed.
    #[error("the pod's nameserver answered {0}")]
    Failed(ResponseCode),
    /// The answer makes no sense.
    #[error("the pod's nameserver answered nonsense")]
    Malformed,
}

/// Asks for the records of `name`. An unknown name has none.
pub(crate) async fn lookup(
    pod: &dyn Pod,
    name: &Name,
    record_type: RecordType,
) -> Result<Message, LookupError> {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), record_type));
    let query = query.to_vec().map_err(|_| LookupError::Malformed)?;
    let answer = pod.dns(query.into()).await?;
    let answer = Message::from_vec(&answer).map_err(|_| LookupError::Malformed)?;
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
        code => Err(LookupError::Failed(code)),
    }
}
