//! The command lines of the README, to be run as they are printed.

use crate::manifests;
use anyhow::{Context, Result};
use std::fs;

/// A command line and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// The heading above it.
    pub section: String,
    /// The command without the prompt, with its line breaks.
    pub command: String,
}

/// All command lines of the README.
pub fn steps() -> Result<Vec<Step>> {
    let path = manifests::repository().join("README.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(extract(&text))
}

/// What stands behind the prompt `$ ` in blocks of `console`, with the lines that a backslash continues it on.
fn extract(markdown: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = vec![];
    let mut section = "";
    let mut block = None;
    let mut continued = false;
    for line in markdown.lines() {
        match (block, line.strip_prefix("```")) {
            (Some(_), Some(_)) => block = None,
            (None, Some(language)) => block = Some(language),
            (None, None) => {
                if let Some(heading) = line.strip_prefix('#') {
                    section = heading.trim_start_matches('#').trim();
                }
            }
            (Some("console"), None) => {
                if let (true, Some(step)) = (continued, steps.last_mut()) {
                    step.command = format!("{}\n{line}", step.command);
                } else if let Some(command) = line.strip_prefix("$ ") {
                    let (section, command) = (section.to_owned(), command.to_owned());
                    steps.push(Step { section, command });
                }
                continued = line.ends_with('\\');
            }
            (Some(_), None) => {}
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_under_their_headings() {
        let steps = extract(
            "# Top\n```console\n$ one\noutput\n$ two \\\n    --more\n```\n## 2. Next\n```yaml\n$ no\n# no\n```\n$ no\n```console\n$ three\n```\n",
        );
        let steps: Vec<_> = steps
            .iter()
            .map(|s| (s.section.as_str(), s.command.as_str()))
            .collect();
        assert_eq!(
            steps,
            [
                ("Top", "one"),
                ("Top", "two \\\n    --more"),
                ("2. Next", "three")
            ]
        );
    }

    #[test]
    fn the_readme_comes_to_the_point() {
        let readme = fs::read_to_string(manifests::repository().join("README.md")).unwrap();
        let (before, _) = readme.split_once("\n$ ").unwrap();
        assert!(
            before.split_whitespace().count() <= 50,
            "words before the first command"
        );
    }
}
