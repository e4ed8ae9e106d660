//! Writes `docs/promises.md` from the results of the last test run: which test shows which promise. Silent if every claimed promise
//! has a test, every end-to-end test has a promise, and every row of the reference's "What your program sees" names tests that ran.

use anyhow::{Context, Result, bail};
use roxmltree::{Document, Node};
use std::fmt::Write;
use std::fs;
use tests::manifests::repository;
use tests::scenarios::{CLAIMED, ids};

/// As nextest calls the end-to-end tests.
const END_TO_END: &str = "tests::e2e";

/// Where the reference tells a program's differences from the pod.
const DIFFERENCES: &str = "\n## What your program sees\n";

struct Test {
    suite: String,
    name: String,
    ids: Vec<String>,
    passed: bool,
}

fn main() -> Result<()> {
    let tests = results()?;
    fs::write(repository().join("docs/promises.md"), page(&tests))?;
    let reference = fs::read_to_string(repository().join("docs/reference.md"))?;
    let mut mistakes = mistakes(&tests);
    mistakes.extend(unshown(&reference, &tests)?);
    if !mistakes.is_empty() {
        bail!("{}", mistakes.join("\n"));
    }
    Ok(())
}

/// From where nextest reports to: `target` of the workspace, wherever cargo builds.
fn results() -> Result<Vec<Test>> {
    let path = repository().join("target/nextest/default/junit.xml");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("{}: run the tests first", path.display()))?;
    parse(&text)
}

fn parse(junit: &str) -> Result<Vec<Test>> {
    let document = Document::parse(junit)?;
    let cases = document
        .descendants()
        .filter(|node| node.has_tag_name("testcase"));
    let tests: Result<Vec<_>> = cases
        .map(|case| {
            let attribute = |node: Node, name| {
                node.attribute(name)
                    .map(str::to_owned)
                    .context("JUnit's attributes")
            };
            let name = attribute(case, "name")?;
            let bad = |child: Node| child.has_tag_name("failure") || child.has_tag_name("error");
            Ok(Test {
                suite: attribute(case, "classname")?,
                ids: ids(&name),
                name,
                passed: !case.children().any(bad),
            })
        })
        .collect();
    // They come in the order in which they ended.
    let mut tests = tests?;
    tests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tests)
}

fn page(tests: &[Test]) -> String {
    let mut page = "# Promises\nWritten by `make test` from its results: each promise, and the tests that show it.\n\n\
                    | | promise | tests | result |\n|---|---|---|---|\n"
        .to_owned();
    for (id, promise) in CLAIMED {
        let tests: Vec<_> = of(id, tests).collect();
        let names: Vec<_> = tests
            .iter()
            .map(|test| format!("`{}`", test.name))
            .collect();
        let result = match tests.iter().filter(|test| !test.passed).count() {
            0 if tests.is_empty() => "no test".into(),
            0 => "passed".into(),
            failed => format!("{failed} of {} failed", tests.len()),
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            page,
            "| {id} | {promise} | {} | {result} |",
            names.join("<br>")
        );
    }
    page
}

fn mistakes(tests: &[Test]) -> Vec<String> {
    let untested = CLAIMED
        .iter()
        .filter(|(id, _)| of(id, tests).next().is_none());
    let untested =
        untested.map(|(id, promise)| format!("{id} is claimed and has no test: {promise}"));
    let claimed = |id: &String| CLAIMED.iter().any(|(claimed, _)| claimed == id);
    let nameless = tests.iter().filter(|test| {
        test.suite == END_TO_END && !(test.ids.iter().any(claimed) && test.ids.iter().all(claimed))
    });
    let nameless = nameless.map(|test| format!("{} does not begin with claimed ids", test.name));
    untested.chain(nameless).collect()
}

/// The rows of the reference's tables of differences that do not name a test, or one that did not run. The names stand in their last
/// column, as in the promises.
fn unshown(reference: &str, tests: &[Test]) -> Result<Vec<String>> {
    const HEAD: &str = "|---|---|---|\n";
    let (_, section) = reference
        .split_once(DIFFERENCES)
        .with_context(|| format!("the reference has no {DIFFERENCES:?}"))?;
    let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
    if !section.contains(HEAD) {
        bail!("{DIFFERENCES:?} has no table of three columns");
    }
    let tables = section.split(HEAD).skip(1);
    let mistakes = tables
        .flat_map(|table| table.lines().take_while(|line| line.starts_with('|')))
        .flat_map(|row| {
            let row = row.trim_matches(['|', ' ']);
            let (what, names) = row.rsplit_once(" | ").unwrap_or((row, ""));
            let unknown = names.split("<br>").map(|name| name.trim_matches('`'));
            let unknown = unknown.filter(|name| !tests.iter().any(|test| test.name == *name));
            unknown.map(move |name| {
                format!("in the reference, {what:?} is shown by no test of the name {name:?}")
            })
        });
    Ok(mistakes.collect())
}

fn of<'a>(id: &'a str, tests: &'a [Test]) -> impl Iterator<Item = &'a Test> {
    tests
        .iter()
        .filter(move |test| test.ids.iter().any(|i| i == id))
}

#[cfg(test)]
mod unit {
    use super::*;

    const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?><testsuites><testsuite name="tests::e2e">
        <testcase name="start::s1_good" classname="tests::e2e" time="1"/>
        <testcase name="start::s6_bad" classname="tests::e2e"><failure type="x">why</failure></testcase>
        <testcase name="start::nameless" classname="tests::e2e"/>
        <testcase name="nameless" classname="tunnel"/></testsuite></testsuites>"#;

    #[test]
    fn results_are_told_by_promise() {
        let page = page(&parse(REPORT).unwrap());
        assert!(
            page.contains("as printed | `start::s1_good` | passed |"),
            "{page}"
        );
        assert!(
            page.contains("`start::s6_bad` | 1 of 1 failed |") && page.contains("|  | no test |"),
            "{page}"
        );
    }

    #[test]
    fn promises_without_tests_and_tests_without_promises_are_mistakes() {
        let mistakes = mistakes(&parse(REPORT).unwrap());
        assert_eq!(mistakes.len(), CLAIMED.len() - 2 + 1);
        assert!(
            mistakes
                .iter()
                .any(|m| m == "start::nameless does not begin with claimed ids")
        );
    }

    #[test]
    fn rows_without_a_test_that_ran_are_mistakes() {
        let tests = parse(REPORT).unwrap();
        let table = |row: &str| {
            format!(
                "# Reference{DIFFERENCES}\n| | | shown by |\n|---|---|---|\n{row}\n\n## Next\n| x | y |\n"
            )
        };
        let mistakes = |row: &str| unshown(&table(row), &tests).unwrap().len();
        assert_eq!(
            mistakes("| it | is so | `start::s1_good`<br>`nameless` |"),
            0
        );
        assert_eq!(
            mistakes("| it | is so | `start::s1_good`<br>`start::s1_gone` |"),
            1
        );
        assert_eq!(mistakes("| it | is so |  |\n| it | is so |"), 2);
        let second = "| it | is so | `nameless` |\n\nMore:\n\n| | | shown by |\n|---|---|---|\n";
        assert_eq!(mistakes(&format!("{second}| it | is so | `nameless` |")), 0);
        assert_eq!(mistakes(&format!("{second}| it | is so | `gone` |")), 1);
        assert!(unshown("# Reference\n", &tests).is_err());
    }
}
