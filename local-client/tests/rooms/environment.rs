//! E1, O2: the environment in loopback mode.

use crate::fake::Fake;
use local_client::environment::rewrite::rewrite;
use local_client::pod::Pod;

#[tokio::test]
async fn the_addresses_of_services_become_their_names() {
    let pod = Fake::new();
    pod.service("thing-1.ns.svc.cluster.local", "198.18.0.7", &[80]);
    pod.service("moved.ns.svc.cluster.local", "198.18.0.8", &[80]);
    pod.service("six.ns.svc.cluster.local", "fd00::6", &[80]);
    pod.service("kubernetes.default.svc.cluster.local", "198.18.0.1", &[443]);
    let expected = [
        ("THING_1_SERVICE_HOST", "198.18.0.7", "thing-1.ns.svc"),
        ("THING_1_SERVICE_PORT", "80", "80"),
        (
            "THING_1_PORT",
            "tcp://198.18.0.7:80",
            "tcp://thing-1.ns.svc:80",
        ),
        ("MOVED_SERVICE_HOST", "198.18.0.7", "198.18.0.7"),
        ("SIX_SERVICE_HOST", "fd00::6", "six.ns.svc"),
        ("GONE_SERVICE_HOST", "198.18.0.9", "198.18.0.9"),
        (
            "KUBERNETES_SERVICE_HOST",
            "198.18.0.1",
            "kubernetes.default.svc",
        ),
        (
            "KUBERNETES_PORT_443_TCP",
            "tcp://198.18.0.1:443",
            "tcp://kubernetes.default.svc:443",
        ),
        ("UPSTREAM", "198.18.0.7", "198.18.0.7"),
    ];
    for (key, value, _) in expected {
        pod.variable(key, value);
    }
    let variables = rewrite(&*pod, pod.facts().environment.clone()).await;
    assert_eq!(variables.len(), expected.len());
    for (variable, (key, _, value)) in variables.iter().zip(expected) {
        assert_eq!(variable.key.0, key.as_bytes());
        assert_eq!(String::from_utf8_lossy(&variable.value.0), value, "{key}");
    }
}

/// Nothing changes while nothing can be looked up.
#[tokio::test]
async fn without_a_link_the_environment_stays() {
    let pod = Fake::new();
    pod.service("thing1.ns.svc.cluster.local", "198.18.0.7", &[80]);
    pod.variable("THING1_SERVICE_HOST", "198.18.0.7");
    pod.set_link_down(true);
    let before = pod.facts().environment.clone();
    assert!(rewrite(&*pod, before.clone()).await == before);
}
