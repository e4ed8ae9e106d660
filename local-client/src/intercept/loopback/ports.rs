//! The ports of a Service.

use super::names::Service;
use crate::dns::lookup::{LookupError, lookup};
use crate::pod::Pod;
use hickory_proto::rr::{RData, RecordType};
use std::collections::BTreeSet;
use tunnel::facts::Variable;

/// The ports of `service`: those of the SRV records of its bare name, where CoreDNS lists them all, else those that the
/// pod's environment tells.
pub(super) async fn of(pod: &dyn Pod, service: &Service) -> Result<BTreeSet<u16>, LookupError> {
    let asked = lookup(pod, &service.name, RecordType::SRV).await;
    let asked = asked.map(|answer| -> BTreeSet<u16> {
        let ports = answer
            .answers
            .iter()
            .filter_map(|record| match &record.data {
                // A Service that is an alias (ExternalName) has port 0.
                RData::SRV(srv) if srv.port != 0 => Some(srv.port),
                _ => None,
            });
        ports.collect()
    });
    match asked {
        Ok(ports) if !ports.is_empty() => Ok(ports),
        // What passes by itself is not to be taken for a nameserver that knows no SRV.
        Err(LookupError::Unanswered(error)) => Err(error.into()),
        asked => match &service.variables {
            Some(prefix) => {
                let told = told(&pod.facts().environment, prefix);
                if told.is_empty() { asked } else { Ok(told) }
            }
            None => asked,
        },
    }
}

/// The values of `PREFIX_SERVICE_PORT` and `PREFIX_SERVICE_PORT_*`.
fn told(environment: &[Variable], prefix: &str) -> BTreeSet<u16> {
    let key = format!("{prefix}_SERVICE_PORT");
    let of_service = |variable: &&Variable| {
        let rest = variable.key.0.strip_prefix(key.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"_"))
    };
    let port = |variable: &Variable| std::str::from_utf8(&variable.value.0).ok()?.parse().ok();
    environment
        .iter()
        .filter(of_service)
        .filter_map(port)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tunnel::facts::Blob;

    #[test]
    fn the_environment_tells_the_ports_of_a_service() {
        let environment = [
            ("DB_SERVICE_PORT", "5432"),
            ("DB_SERVICE_PORT_METRICS", "9187"),
            ("DB_SERVICE_PORTS", "1"),
            ("MY_DB_SERVICE_PORT", "2"),
            ("DB_SERVICE_HOST", "3"),
            ("DB_SERVICE_PORT_ODD", "tcp://x"),
        ]
        .map(|(key, value)| Variable {
            key: Blob(key.into()),
            value: Blob(value.into()),
        });
        assert_eq!(told(&environment, "DB"), BTreeSet::from([5432, 9187]));
    }
}
