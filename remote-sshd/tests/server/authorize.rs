//! Registering a key from within the container (X2, X6). Another container is another mount namespace.

use crate::harness::{Server, free_port, key, soon};
use crate::program::{self, PATH, Program};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::ffi::OsStr;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::linux::fs::MetadataExt;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Stdio;
use tokio::process::Command;

/// The name on which the server of this mount namespace listens.
fn socket_name(port: u16) -> String {
    let inode = std::fs::metadata("/proc/self/ns/mnt").unwrap().st_ino();
    format!("telepresence-remote/{inode}/{port}")
}

fn address(name: &str) -> SocketAddr {
    SocketAddr::from_abstract_name(name).unwrap()
}

/// Runs a program in a mount namespace of its own.
fn in_another_container(program: impl AsRef<OsStr>) -> Command {
    let mut unshare = Command::new("unshare");
    // Whoever is not root needs a user namespace for it.
    unshare.arg(if nix::unistd::geteuid().is_root() {
        "-m"
    } else {
        "-rm"
    });
    unshare.arg(program).stdin(Stdio::null()).kill_on_drop(true);
    unshare
}

fn line() -> String {
    key("me").public_key().to_openssh().unwrap()
}

#[tokio::test]
async fn a_key_is_registered_and_enters() {
    let program = Program::start(&[]).await;
    let me = key("me@laptop");
    let mut server = Server::start().await;
    server.address = ([127, 0, 0, 1], program.port).into();
    server.host_key = program.host_key.parse().unwrap();

    let output = program
        .authorize(&me.public_key().to_openssh().unwrap())
        .await;
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let host_key = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        host_key,
        format!("{}\n", program.host_key),
        "one line, as in the log"
    );
    server.client_with(&me).await;
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let program = Program::start(&[]).await;
    for (bad, reason) in [
        ("hello", "not a public key"),
        (
            "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDJ me",
            "neither ed25519 nor ecdsa",
        ),
        ("no-pty ssh-ed25519 AAAA", "options before the key"),
        ("", "not a public key"),
    ] {
        let output = program.authorize(bad).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(reason) && output.stdout.is_empty(), "{text}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[tokio::test]
async fn without_a_server_it_says_so() {
    let mut command = program::command(free_port().await);
    let output = soon(command.args(["authorize", &line()]).output())
        .await
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("no remote-sshd is serving"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

/// X2: `authorize` in another container does not find this one's server.
#[tokio::test]
async fn another_container_does_not_find_the_server() {
    let program = Program::start(&[]).await;
    let mut command = in_another_container(PATH);
    command.env("TELEPRESENCE_SSH_PORT", program.port.to_string());
    let output = soon(command.args(["authorize", &line()]).output())
        .await
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("no remote-sshd is serving"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

/// X2: a process of another container that does find the server, by the name that it read elsewhere, is refused.
#[tokio::test]
async fn another_container_cannot_register_a_key() {
    let mut program = Program::start(&[]).await;
    let own = ask_as_myself(&socket_name(program.port), &line());
    assert!(
        own.starts_with("ok ssh-ed25519 "),
        "the way in that is to be closed: {own}"
    );

    let mut attacker = in_another_container(std::env::current_exe().unwrap());
    attacker
        .args(["--exact", "authorize::attacker", "--ignored", "--nocapture"])
        .env("ATTACKED", socket_name(program.port));
    let output = soon(attacker.output()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("answer: error you are not in the container of this server"),
        "{text}"
    );
    let said = loop {
        let line = soon(program.log.next_line()).await.unwrap().unwrap();
        if !line.contains("registered a key") {
            break line;
        }
    };
    assert!(said.contains("outside this container"), "{said}");
}

/// Not a test: what [`another_container_cannot_register_a_key`] runs in another mount namespace.
#[test]
#[ignore = "a part of another test"]
fn attacker() {
    let name = std::env::var("ATTACKED").unwrap();
    println!("answer: {}", ask_as_myself(&name, &line()));
}

/// Speaks the protocol with a descriptor of the mount namespace of whoever runs this.
fn ask_as_myself(name: &str, line: &str) -> String {
    let mut stream = UnixStream::connect_addr(&address(name)).unwrap();
    let namespace = std::fs::File::open("/proc/self/ns/mnt").unwrap();
    let descriptors = [namespace.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let line = format!("{line}\n");
    rustix::net::sendmsg(
        &stream,
        &[IoSlice::new(line.as_bytes())],
        &mut control,
        SendFlags::empty(),
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// X2: whoever sits on the server's socket gets a server that does not start, and an `authorize` that fails.
#[tokio::test]
async fn a_squatter_is_noticed() {
    let port = free_port().await;
    let squatter = UnixListener::bind_addr(&address(&socket_name(port))).unwrap();
    let output = soon(program::command(port).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("another process of the pod has the name of our socket"),
        "{text}"
    );

    let forging = std::thread::spawn(move || {
        let (mut stream, _) = squatter.accept().unwrap();
        let mut request = [0; 64];
        assert!(stream.read(&mut request).unwrap() > 0);
        std::io::Write::write_all(&mut stream, b"ok ssh-ed25519 FORGED\n").unwrap();
    });
    let mut authorize = program::command(port);
    let output = soon(authorize.args(["authorize", &line()]).output())
        .await
        .unwrap();
    forging.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("another container of the pod"), "{text}");
}

/// X6: any user, a program that may be executed and not read, no capabilities; and nobody of the same user looks into it.
/// As root only.
#[tokio::test]
async fn any_user_will_do() {
    const USER: u32 = 54321;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let path = dir.path().join("remote-sshd");
    std::fs::copy(PATH, &path).unwrap();
    for mode in [0o111, 0o755] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let port = free_port().await;
        let as_user = |mut command: Command| {
            command.uid(USER).gid(USER).current_dir("/");
            command
        };
        let command = || as_user(program::command_of(path.clone(), port));
        let program = Program::started(command(), port).await;
        let output = soon(command().args(["authorize", &line()]).output())
            .await
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let host_key = String::from_utf8(output.stdout).unwrap();
        assert_eq!(host_key.trim_end(), program.host_key);

        let mut look = as_user(Command::new("cat"));
        look.arg(format!("/proc/{}/environ", program.pid()));
        let output = soon(look.output()).await.unwrap();
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{mode:o}"
        );
    }
}
