//! The program itself, where it ends before it needs a cluster.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn client(arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_local-client"));
    program.env_clear().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn it_tells_its_version() {
    let said = client(&["version"]);
    assert_eq!(said.status.code(), Some(0));
    let version = format!("local-telepresence {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&said.stdout), version);
}

#[test]
fn what_it_does_not_understand_is_told_on_stderr_with_code_2() {
    for (arguments, part) in [
        (&["--expose", "eighty", "x"][..], "eighty"),
        (&["--no-such-option"], "--no-such-option"),
        (&["--log-format", "xml", "x"], "xml"),
        (&["--intercept", "magic", "x"], "magic"),
        (
            &["--proxy", "no-port.example.com", "x"],
            "no-port.example.com",
        ),
    ] {
        let said = client(arguments);
        assert_eq!(said.status.code(), Some(2), "{arguments:?}");
        assert!(text(&said.stderr).contains(part), "{}", text(&said.stderr));
        assert!(said.stdout.is_empty());
    }
}

/// The last words of a run that cannot begin: one line, in the format that was asked for.
#[test]
fn an_error_is_one_line_in_the_format_that_was_asked_for() {
    let plain = client(&["--log-format", "text"]);
    assert_eq!(plain.status.code(), Some(2));
    let plain = text(&plain.stderr);
    assert_eq!(plain.lines().count(), 1, "{plain}");
    assert!(plain.contains("which workload?"), "{plain}");

    let json = client(&["--log-format", "json"]);
    let line: serde_json::Value = serde_json::from_slice(&json.stderr).unwrap();
    assert_eq!(line["level"], "ERROR", "{line}");
    assert!(line.to_string().contains("which workload?"), "{line}");
}
