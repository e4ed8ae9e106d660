//! Which variables of the remote container are the app's.

use tunnel::facts::{Facts, Variable};

/// What starts with this configures remote-sshd.
const OURS: &[u8] = b"TELEPRESENCE_";

/// PATH as container runtimes set it where the image does not.
const RUNTIME_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables that go out to the app, in their own order. What is there because remote-sshd's image runs in the container
/// stays behind: PATH, HOME and HOSTNAME, unless the pod's specification sets them. `declared` has the keys that it sets by
/// name; where it is not known, and for what comes from a ConfigMap or Secret as a whole, the value tells.
pub fn outgoing(facts: &Facts, declared: Option<&[String]>) -> Vec<Variable> {
    let is_declared = |key: &[u8]| {
        let mut keys = declared.into_iter().flatten();
        keys.any(|declared| declared.as_bytes() == key)
    };
    let variables = facts.environment.iter();
    variables
        .filter(|Variable { key, value }| {
            !key.0.starts_with(OURS)
                && (is_declared(&key.0) || !is_default(&key.0, &value.0, &facts.hostname))
        })
        .cloned()
        .collect()
}

/// Whether the value is the one that the image, the runtime or the kubelet sets by itself.
fn is_default(key: &[u8], value: &[u8], hostname: &str) -> bool {
    match key {
        b"PATH" => value == b"/" || value == RUNTIME_PATH,
        b"HOME" => value == b"/",
        b"HOSTNAME" => value == hostname.as_bytes(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tunnel::facts::Blob;

    fn keys(environment: &[(&str, &str)], declared: Option<&[&str]>) -> Vec<String> {
        let variable = |&(key, value): &(&str, &str)| Variable {
            key: Blob(key.into()),
            value: Blob(value.into()),
        };
        let facts = Facts {
            version: String::new(),
            hostname: "pod-1".into(),
            budget: 0,
            environment: environment.iter().map(variable).collect(),
            resolv_conf: Blob(vec![]),
            hosts: Blob(vec![]),
        };
        let declared: Option<Vec<String>> =
            declared.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect());
        outgoing(&facts, declared.as_deref())
            .into_iter()
            .map(|variable| String::from_utf8(variable.key.0).unwrap())
            .collect()
    }

    #[test]
    fn what_the_image_sets_stays_behind() {
        let environment = [
            ("PATH", "/"),
            ("HOSTNAME", "pod-1"),
            ("TELEPRESENCE_SSH_PORT", "8022"),
            ("A", ""),
            ("HOME", "/"),
            ("HOMEPAGE", "/"),
        ];
        assert_eq!(keys(&environment, None), ["A", "HOMEPAGE"]);
        assert_eq!(keys(&environment, Some(&["A"])), ["A", "HOMEPAGE"]);
        let runtime = [(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )];
        assert!(keys(&runtime, None).is_empty());
    }

    #[test]
    fn what_the_specification_sets_goes_out() {
        let same = [
            ("PATH", "/"),
            ("HOME", "/"),
            ("HOSTNAME", "pod-1"),
            ("TELEPRESENCE_X", ""),
        ];
        let declared = ["PATH", "HOME", "HOSTNAME", "TELEPRESENCE_X"];
        assert_eq!(keys(&same, Some(&declared)), ["PATH", "HOME", "HOSTNAME"]);
        let other = [("PATH", "/app"), ("HOME", "/home"), ("HOSTNAME", "me")];
        assert_eq!(keys(&other, None), ["PATH", "HOME", "HOSTNAME"]);
        assert_eq!(keys(&other, Some(&[])), ["PATH", "HOME", "HOSTNAME"]);
    }
}
