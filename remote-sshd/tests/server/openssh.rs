//! Stock OpenSSH (M1, M2, X4).

use crate::harness::{Server, free_port, key, soon, target};
use russh::keys::ssh_key::LineEnding;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::Instant;

const SENTENCE: &str =
    "This is a telepresence proxy: it forwards ports (ssh -N -L, -R, -D, -W) and has no shell.\n";

/// A server, and the files by which OpenSSH's client knows it.
pub struct OpenSsh {
    pub server: Server,
    dir: TempDir,
}

impl OpenSsh {
    pub async fn start() -> OpenSsh {
        let server = Server::start().await;
        let dir = tempfile::tempdir().unwrap();
        let known = format!(
            "[127.0.0.1]:{} {}\n",
            server.address.port(),
            server.host_key.to_openssh().unwrap()
        );
        std::fs::write(dir.path().join("known_hosts"), known).unwrap();
        server
            .key
            .write_openssh_file(dir.path().join("key"), LineEnding::LF)
            .unwrap();
        OpenSsh { server, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `ssh`, `scp` or `sftp` with everything but the destination.
    fn program(&self, program: &str) -> Command {
        self.program_that_logs(program, "ERROR")
    }

    fn program_that_logs(&self, program: &str, level: &str) -> Command {
        let mut command = Command::new(program);
        command.args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
        ]);
        command.arg("-o").arg(format!(
            "UserKnownHostsFile={}",
            self.path("known_hosts").display()
        ));
        command
            .arg("-o")
            .arg(format!("Port={}", self.server.address.port()));
        command.arg("-o").arg(format!("LogLevel={level}"));
        command.arg("-i").arg(self.path("key"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn ssh(&self, arguments: &[&str]) -> Output {
        let mut ssh = self.program("ssh");
        ssh.args(arguments);
        soon(ssh.output()).await.unwrap()
    }

    /// A client that forwards and stays.
    pub async fn forwarding(&self, arguments: &[&str]) -> Child {
        let mut ssh = self.program("ssh");
        ssh.args(["-N", "-o", "ExitOnForwardFailure=yes"])
            .args(arguments)
            .arg("telepresence@127.0.0.1");
        ssh.spawn().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub async fn connect(port: u16) -> TcpStream {
    soon(async {
        loop {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(tcp) => return tcp,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await
}

/// Answers every connection with what it sent, after a greeting, once its end is there.
async fn echo_after_end() -> u16 {
    let (port, listener) = target().await;
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                tcp.write_all(b"hello ").await.unwrap();
                let mut all = vec![];
                tcp.read_to_end(&mut all).await.unwrap();
                tcp.write_all(&all).await.unwrap();
            });
        }
    });
    port
}

async fn exchange(tcp: &mut TcpStream, request: &[u8]) -> Vec<u8> {
    soon(async {
        let (mut read, mut write) = tcp.split();
        let mut answer = vec![];
        let sending = async {
            write.write_all(request).await.unwrap();
            write.shutdown().await.unwrap();
        };
        tokio::join!(sending, async {
            read.read_to_end(&mut answer).await.unwrap()
        });
        answer
    })
    .await
}

/// M2
#[tokio::test]
async fn without_a_command_there_is_one_sentence() {
    let ssh = OpenSsh::start().await;
    for terminal in ["-T", "-tt"] {
        let output = ssh.ssh(&[terminal, "telepresence@127.0.0.1"]).await;
        assert_eq!(
            text(&output.stdout).replace("\r\n", "\n"),
            SENTENCE,
            "{output:?}"
        );
        assert_eq!(
            (output.status.code(), text(&output.stderr)),
            (Some(0), String::new())
        );
    }
}

/// X4
#[tokio::test]
async fn programs_and_files_are_refused_politely() {
    let ssh = OpenSsh::start().await;
    let output = ssh
        .ssh(&["telepresence@127.0.0.1", "cat", "/etc/passwd"])
        .await;
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(1), String::new())
    );
    assert_eq!(text(&output.stderr), SENTENCE);
    let output = ssh.ssh(&["-A", "-X", "-T", "telepresence@127.0.0.1"]).await;
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), SENTENCE.into())
    );

    for arguments in [
        &["-O", "x@127.0.0.1:/etc/passwd", "/dev/null"][..],
        &["x@127.0.0.1:/etc/passwd", "/dev/null"],
    ] {
        let mut scp = ssh.program("scp");
        scp.args(arguments);
        let output = soon(scp.output()).await.unwrap();
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
    }
    let mut sftp = ssh.program("sftp");
    let output = soon(sftp.arg("x@127.0.0.1").output()).await.unwrap();
    assert!(
        text(&output.stderr).contains("subsystem request failed"),
        "{output:?}"
    );
}

/// X1
#[tokio::test]
async fn other_keys_and_passwords_are_refused() {
    let ssh = OpenSsh::start().await;
    let wrong = key("wrong");
    wrong
        .write_openssh_file(ssh.path("wrong"), LineEnding::LF)
        .unwrap();
    std::fs::rename(ssh.path("wrong"), ssh.path("key")).unwrap();
    for method in ["publickey", "password", "keyboard-interactive", "none"] {
        let methods = format!("PreferredAuthentications={method}");
        let output = ssh.ssh(&["-o", &methods, "root@127.0.0.1"]).await;
        assert_eq!(output.status.code(), Some(255));
        assert!(
            text(&output.stderr).contains("Permission denied (publickey)"),
            "{output:?}"
        );
    }
}

/// M1: `-W`, which waits for the server to close the channel.
#[tokio::test]
async fn standard_input_and_output_are_forwarded() {
    let ssh = OpenSsh::start().await;
    let port = echo_after_end().await;
    let mut command = ssh.program("ssh");
    command
        .args(["-W", &format!("127.0.0.1:{port}"), "telepresence@127.0.0.1"])
        .stdin(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let request = vec![b'x'; 3 << 20];
    let sent = request.clone();
    let sending = tokio::spawn(async move { stdin.write_all(&sent).await.unwrap() });
    let output = soon(child.wait_with_output()).await.unwrap();
    sending.await.unwrap();
    assert_eq!(output.stdout, [b"hello ".as_slice(), &request].concat());
    assert!(output.status.success());
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "the server did not close"
    );

    let refused = free_port().await;
    let mut command = ssh.program_that_logs("ssh", "INFO");
    let target = format!("127.0.0.1:{refused}");
    let output = command
        .args(["-W", &target, "telepresence@127.0.0.1"])
        .output();
    let output = soon(output).await.unwrap();
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(
        said.contains("connect failed: connection refused"),
        "{said}"
    );
}

/// M1: `-L`, several connections, half-close, and keys exchanged anew while data is in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_ports_are_forwarded() {
    let ssh = OpenSsh::start().await;
    let (port, local) = (echo_after_end().await, free_port().await);
    let forward = format!("127.0.0.1:{local}:localhost:{port}");
    let _client = ssh
        .forwarding(&["-L", &forward, "-o", "RekeyLimit=1M"])
        .await;
    let request = vec![b'x'; 8 << 20];
    let mut open = vec![
        connect(local).await,
        connect(local).await,
        connect(local).await,
    ];
    for tcp in &mut open {
        let answer = exchange(tcp, &request).await;
        assert!(
            answer == [b"hello ".as_slice(), &request].concat(),
            "{}",
            answer.len()
        );
    }
}

/// A target that resets is not an orderly end to a client of OpenSSH's either: its channel is closed at once.
#[tokio::test]
async fn a_reset_target_closes_the_channel() {
    let ssh = OpenSsh::start().await;
    let ((port, listener), local) = (target().await, free_port().await);
    let _client = ssh
        .forwarding(&["-L", &format!("127.0.0.1:{local}:127.0.0.1:{port}")])
        .await;
    let mut tcp = connect(local).await;
    let (accepted, _) = soon(listener.accept()).await.unwrap();
    tunnel::copy::reset(&accepted);
    drop(accepted);
    // Whether as an end or a reset is for OpenSSH to say.
    let _ = soon(tcp.read(&mut [0])).await;
}

/// M1: `-R`, with a port of the client's choice and of the server's, refused callers, and the end of it.
#[tokio::test]
async fn remote_ports_are_forwarded() {
    let ssh = OpenSsh::start().await;
    let (port, remote) = (echo_after_end().await, free_port().await);
    let mut client = ssh
        .forwarding(&["-R", &format!("{remote}:127.0.0.1:{port}")])
        .await;
    assert_eq!(
        exchange(&mut connect(remote).await, b"abc").await,
        b"hello abc"
    );

    let closed = free_port().await;
    let mut other = ssh.program_that_logs("ssh", "INFO");
    other.args([
        "-N",
        "-R",
        &format!("*:0:127.0.0.1:{closed}"),
        "x@127.0.0.1",
    ]);
    let mut other = other.spawn().unwrap();
    let mut said = tokio::io::BufReader::new(other.stderr.take().unwrap());
    let mut line = String::new();
    soon(tokio::io::AsyncBufReadExt::read_line(&mut said, &mut line))
        .await
        .unwrap();
    let allocated = line
        .split_whitespace()
        .nth(2)
        .and_then(|port| port.parse().ok());
    let mut caller = connect(allocated.unwrap_or_else(|| panic!("{line}"))).await;
    let error = soon(caller.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    client.kill().await.unwrap();
    until_free(remote).await;
}

/// M1: `-D`, names resolved in the pod.
#[tokio::test]
async fn socks_is_forwarded() {
    let ssh = OpenSsh::start().await;
    let (port, local) = (echo_after_end().await, free_port().await);
    let _client = ssh.forwarding(&["-D", &format!("127.0.0.1:{local}")]).await;
    let mut tcp = connect(local).await;
    tcp.write_all(&[5, 1, 0]).await.unwrap();
    let mut answer = [0; 2];
    soon(tcp.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, [5, 0]);
    let name = b"alias.example";
    let mut request = vec![5, 1, 0, 3, name.len().try_into().unwrap()];
    request.extend(name);
    request.extend(port.to_be_bytes());
    tcp.write_all(&request).await.unwrap();
    let mut answer = [0; 10];
    soon(tcp.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer[..2], [5, 0]);
    assert_eq!(exchange(&mut tcp, b"abc").await, b"hello abc");
}

/// Waits until nobody listens on `port` any more. Binding never waits by itself, and the server runs in the same thread.
async fn until_free(port: u16) {
    soon(async {
        while TcpListener::bind(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// M1: several commands share one connection (`ControlMaster`).
#[tokio::test]
async fn connections_are_shared() {
    let ssh = OpenSsh::start().await;
    let control = format!("ControlPath={}", ssh.path("control").display());
    let _master = ssh
        .forwarding(&["-o", "ControlMaster=yes", "-o", &control])
        .await;
    let shared = ["-o", &control, "-o", "ControlMaster=no"];
    soon(async {
        while !ssh
            .ssh(&[&shared[..], &["-O", "check", "x@127.0.0.1"]].concat())
            .await
            .status
            .success()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // The connection is used, and not made anew: the key is no longer there.
    std::fs::remove_file(ssh.path("key")).unwrap();
    let output = ssh
        .ssh(&[&shared[..], &["-T", "x@127.0.0.1"]].concat())
        .await;
    assert_eq!(text(&output.stdout), SENTENCE, "{output:?}");

    let (port, remote) = (echo_after_end().await, free_port().await);
    let forward = format!("{remote}:127.0.0.1:{port}");
    for (word, expected) in [("forward", true), ("cancel", false)] {
        let output = ssh
            .ssh(&[&shared[..], &["-O", word, "-R", &forward, "x@127.0.0.1"]].concat())
            .await;
        assert!(output.status.success(), "{output:?}");
        if expected {
            assert_eq!(
                exchange(&mut connect(remote).await, b"abc").await,
                b"hello abc"
            );
        } else {
            until_free(remote).await;
        }
    }
}

/// The client's own sign of life is answered, so that it does not take the server for dead.
#[tokio::test]
async fn keepalives_are_answered() {
    let ssh = OpenSsh::start().await;
    let mut client = ssh
        .forwarding(&["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1"])
        .await;
    let ended = tokio::time::timeout(Duration::from_secs(4), client.wait()).await;
    assert!(ended.is_err(), "{ended:?}");
}
