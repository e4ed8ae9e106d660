//! The client where Docker runs without root.

use anyhow::Context;
use tests::client::{ADMIN, IMAGE, TARGET};
use tests::command::run;
use tests::manifests::BUSYBOX;
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::rootless::Rootless;

/// Both modes, both ways: as anywhere else, but for the API server's address, which the reference tells of.
#[test]
fn s1_o1_o5_i1_an_engine_without_root() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let engine = Rootless::start(&[IMAGE, BUSYBOX])?;
    let (mut kubeconfig, node) = (
        namespace.kubectl("config view --raw --flatten")?,
        namespace.node_address()?,
    );
    let server = kubeconfig.lines().find(|line| line.contains("server: "));
    let server = server.context("a server")?.to_owned();
    kubeconfig = kubeconfig.replace(&server, &format!("    server: https://{node}:6443"));
    let mount = engine.share("config", &kubeconfig)? + ":/opt/.kube/config:ro";
    let service = namespace.kubectl("get service thing1 -o jsonpath={.spec.clusterIP}")?;

    for (name, capability) in [("transparent", &ADMIN[..]), ("loopback", &[])] {
        let client = [
            "run", "-d", "--name", name, "-v", &mount, "--tmpfs", "/output",
        ];
        let options = [IMAGE, "--expose", "8080", TARGET];
        run(&mut engine.docker(&[&client[..], capability, &options].concat()))?;
        engine.logged(name, "ready")?;
        let network = format!("--net=container:{name}");
        let fetch = |host: &str| {
            // No wget: that of a static busybox does not survive glibc's resolver.
            let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 10 nc {host} 7001");
            let joined = ["run", "--rm", &network, BUSYBOX, "sh", "-c", &script];
            let answer = run(&mut engine.docker(&joined))?;
            anyhow::Ok(answer.lines().last().map(str::to_owned))
        };
        assert_eq!(fetch("thing1")?.as_deref(), Some("thing1"), "{name}");
        if capability == ADMIN {
            assert_eq!(fetch(&service)?.as_deref(), Some("thing1"));
        }
        let serve =
            format!("mkdir /www && echo {name} >/www/index.html && exec httpd -f -p 8080 -h /www");
        let code = [
            "run", "-d", "--name", "code", &network, BUSYBOX, "sh", "-c", &serve,
        ];
        run(&mut engine.docker(&code))?;
        namespace.answers("http://yourcode-service:8080", name)?;
        run(&mut engine.docker(&["rm", "-f", "code"]))?;
        run(&mut engine.docker(&["stop", name]))?;
    }
    Ok(())
}
