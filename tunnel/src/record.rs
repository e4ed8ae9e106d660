//! What our two ends say of a stream beside its bytes: records, each one CHANNEL_EXTENDED_DATA message (RFC 4254 5.2) with a
//! type code for private use (0xFE000000 to 0xFFFFFFFF).
//!
//! SSH's own EOF forbids everything after it, and so what acknowledges the other direction: a direction ends by a record.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

const NOTHING: u32 = 0xFE00_0000;
const CREDIT: u32 = 0xFE00_0001;
const FIN: u32 = 0xFE00_0002;
const RESET: u32 = 0xFE00_0003;

/// Offsets are in bytes from the begin of the direction; a direction's end counts as one more. Big endian on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// Says nothing. The first on a channel that the sender has confirmed: it may be lost.
    Nothing,
    /// Of the direction towards the sender of this record.
    Credit {
        /// Everything before this has arrived.
        received: u64,
        /// Everything before this may be sent.
        limit: u64,
    },
    /// The direction of the sender of this record ends here.
    Fin {
        /// How many bytes it had.
        at: u64,
    },
    /// The stream is given up, both directions.
    Reset,
}

/// A record of ours that cannot be read: the other end has another idea of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a malformed record of type {0:#x}")]
pub struct Malformed(u32);

impl Record {
    /// The type code and the payload. Never empty: russh drops an empty payload.
    pub fn encode(self) -> (u32, Bytes) {
        let mut payload = BytesMut::with_capacity(16);
        let code = match self {
            Record::Nothing => {
                payload.put_u8(0);
                NOTHING
            }
            Record::Credit { received, limit } => {
                payload.put_u64(received);
                payload.put_u64(limit);
                CREDIT
            }
            Record::Fin { at } => {
                payload.put_u64(at);
                FIN
            }
            Record::Reset => {
                payload.put_u8(0);
                RESET
            }
        };
        (code, payload.freeze())
    }

    /// Reads the record of type `code`; `None` if it is none of ours (a program's standard error, for one).
    ///
    /// # Errors
    /// [`Malformed`] if it has another length than it should.
    pub fn decode(code: u32, payload: &[u8]) -> Result<Option<Record>, Malformed> {
        let number = |bytes: [u8; 8]| u64::from_be_bytes(bytes);
        let malformed = Malformed(code);
        Ok(Some(match code {
            NOTHING => Record::Nothing,
            RESET => Record::Reset,
            FIN => Record::Fin {
                at: number(payload.try_into().map_err(|_| malformed)?),
            },
            CREDIT => {
                let (received, limit) = payload.split_at_checked(8).ok_or(malformed)?;
                Record::Credit {
                    received: number(received.try_into().map_err(|_| malformed)?),
                    limit: number(limit.try_into().map_err(|_| malformed)?),
                }
            }
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_record() -> impl Strategy<Value = Record> {
        prop_oneof![
            Just(Record::Nothing),
            Just(Record::Reset),
            any::<u64>().prop_map(|at| Record::Fin { at }),
            any::<(u64, u64)>().prop_map(|(received, limit)| Record::Credit { received, limit }),
        ]
    }

    proptest! {
        #[test]
        fn a_record_survives_the_wire(record in any_record()) {
            let (code, payload) = record.encode();
            prop_assert!(code >= 0xFE00_0000 && !payload.is_empty());
            prop_assert_eq!(Record::decode(code, &payload), Ok(Some(record)));
        }

        #[test]
        fn another_length_is_malformed(record in any_record(), payload in prop::collection::vec(any::<u8>(), 0..40)) {
            let (code, own) = record.encode();
            let fixed = matches!(record, Record::Fin { .. } | Record::Credit { .. });
            prop_assert_eq!(Record::decode(code, &payload).is_err(), fixed && own.len() != payload.len());
        }

        #[test]
        fn other_types_are_not_ours(code in 0u32..NOTHING, payload in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(Record::decode(code, &payload), Ok(None));
        }
    }
}
