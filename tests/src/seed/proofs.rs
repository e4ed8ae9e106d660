//! What each step of the example must bring about, seen from where a user would look.

use super::{CLIENT, CODE, PRODUCTION, Seed};
use crate::app;
use crate::caller::Caller;
use crate::command::{Background, eventually, run};
use crate::manifests::THING1_PORT;
use crate::shell::Shell;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::process::Command;

const QUERY: &str = "SELECT text FROM greetings ORDER BY text";
/// What the query answers in the cloud.
const GREETINGS: &str = "good morning from the cloud\nhello from the cloud";

/// Digits of a container's id, as Docker shows it.
const SHORT: usize = 12;

impl Seed {
    /// The database by the other command line, from a container that lasts no longer.
    pub(super) fn works_without_the_capability(&mut self) -> Result<()> {
        let network = format!("--net=container:{CLIENT}");
        let environment = format!("--env-file={CLIENT}.env");
        let url = "postgresql://yourcode:yourcode@somewhere.someplace.cloud.example.com/yourcode";
        let mut command = self.namespace.program("docker");
        command.current_dir(&self.directory);
        command.args(["run", "--rm", &network, &environment, CODE]);
        let answer = run(command.args(["psql", "-At", "-c", QUERY, url]))?;
        ensure!(answer.trim_end() == GREETINGS, "{answer}");
        self.proven(
            "the cloud's database answers, also without the capability",
            answer.trim_end(),
        );
        Ok(())
    }

    pub(super) fn run_code(&mut self, line: &str) -> Result<()> {
        self.code = None;
        let code = Background::start(&mut self.bash(line))?;
        self.code = Some(code);
        if line.contains(":/app") {
            return self.edit();
        }
        let id = eventually("the container", || self.code_container())?;
        let url = format!("http://thing1:{THING1_PORT}");
        let answer = self.docker(&["exec", &id, "curl", "-sS", &url])?;
        ensure!(answer == "thing1\n", "{answer}");
        self.proven("a Service answers the local code", answer.trim_end());

        let psql = format!(
            "psql -At -c '{QUERY}' postgresql://yourcode:yourcode@$YOUR_DATABASE_HOST/yourcode"
        );
        let answer = self.docker(&["exec", &id, "sh", "-c", &psql])?;
        ensure!(answer.trim_end() == GREETINGS, "{answer}");
        self.proven(
            "the cloud's database answers the local code",
            answer.trim_end(),
        );

        let answer = self.call(&id, "/greetings")?;
        ensure!(answer == GREETINGS, "{answer}");
        self.proven(
            "the local code answers the cluster, out of the cloud's database",
            &answer,
        );
        Ok(())
    }

    /// The same request before and after an edit.
    fn edit(&mut self) -> Result<()> {
        let id = eventually("the container", || self.code_container())?;
        let before = self.call(&id, "/")?;
        println!("{before}");
        let pod = self.pod()?;
        let file = self.directory.join("yourcode.py");
        let code = fs::read_to_string(&file)?;
        let edited = code.replace("says hello", "was edited on the laptop and says hello");
        ensure!(
            edited != code,
            "{} does not say hello any more",
            file.display()
        );
        fs::write(&file, edited)?;
        println!("(edits yourcode.py)");
        let after = self.call(&id, "/")?;
        ensure!(
            before.contains("yourcode says hello") && after.contains("was edited on the laptop"),
            "{before}\n{after}"
        );
        ensure!(
            self.pod()? == pod && self.code_container()? == id,
            "something was restarted"
        );
        self.proven(
            "the edit answers the cluster, with nothing restarted",
            &after,
        );
        Ok(())
    }

    pub(super) fn database_by_hand(&mut self) -> Result<()> {
        let url = "postgresql://yourcode:yourcode@localhost:15432/yourcode";
        let psql = ["psql", "-At", "-c", QUERY, url];
        let mut command = app::elsewhere(&self.namespace.cluster, "host", &psql);
        let answer = eventually("the database", || run(&mut command))?;
        ensure!(answer.trim_end() == GREETINGS, "{answer}");
        self.proven(
            "the cloud's database answers the laptop through ssh",
            answer.trim_end(),
        );
        Ok(())
    }

    /// A request of the cluster's pod to the Service, which the local code's log must show. Until the rollout is over, production
    /// answers some.
    fn call(&self, container: &str, path: &str) -> Result<String> {
        let url = format!("http://yourcode-service:8080{path}");
        println!("$ kubectl exec caller -- curl -sS {url}");
        eventually("the local code's answer", || {
            let heard = || -> Result<usize> {
                let log = self.namespace.cluster.docker.logs(container)?;
                Ok(log.matches(&format!("\"GET {path} ")).count())
            };
            let before = heard()?;
            let answer = Caller::new(&self.namespace).get(&url)?;
            ensure!(heard()? > before, "answered by another: {answer}");
            Ok(answer)
        })
    }

    pub(super) fn in_production(&self) -> Result<()> {
        self.namespace.rolled_out()?;
        eventually("production", || {
            let query =
                "get pods -l name=yourcode -o jsonpath={.items[*].spec.containers[*].image}";
            let images = self.namespace.kubectl(query)?;
            ensure!(images == [PRODUCTION; 3].join(" "), "{images}");
            Caller::new(&self.namespace).get("http://yourcode-service:8080/")
        })
        .map(drop)
    }

    /// The container that runs the README's command line for the code.
    pub(super) fn code_container(&self) -> Result<String> {
        let containers = self.namespace.cluster.docker.containers(None)?;
        let mut running = containers.into_iter().filter(|container| {
            container.image.as_deref() == Some(CODE)
                && container
                    .status
                    .as_deref()
                    .is_some_and(|status| status.starts_with("Up"))
        });
        running
            .next()
            .and_then(|container| container.id)
            .map(|id| id.chars().take(SHORT).collect())
            .context("no container of the code runs")
    }

    /// Identity and state of the target's pod.
    fn pod(&self) -> Result<(Option<Value>, Option<Value>)> {
        let pod = self.namespace.target_pod()?;
        let part = |path| pod.pointer(path).cloned();
        Ok((
            part("/metadata/uid"),
            part("/status/containerStatuses/0/restartCount"),
        ))
    }

    /// Runs a command of Docker's, and shows it as one would type it.
    fn docker(&self, words: &[&str]) -> Result<String> {
        let typed = words.iter().map(|word| match word.contains(' ') {
            true => format!("{word:?}"),
            false => (*word).to_owned(),
        });
        println!("$ docker {}", typed.collect::<Vec<_>>().join(" "));
        run(Command::new("docker").args(words))
    }

    pub(super) fn proven(&mut self, what: &'static str, shown: &str) {
        println!("✔ {what}:\n    {}", shown.replace('\n', "\n    "));
        self.proofs.push(what);
    }
}
