//! `cargo xtask test h2spec`: checks the gateway's HTTP/2 against RFC 9113 and 7541, by the cases of h2spec. It has a
//! gateway and a Redis of its own, and no services: the page that is requested is the gateway's own.

use crate::{
    cli::Profile,
    fleet::{Beside, Fleet, TICK},
    identity::Identity,
    launch::{Launch, Tier},
    mesh,
    ports::Ports,
    probe,
    secrets::{self, Secrets},
    servers, setup,
    ui::{Step, say},
    workspace::{Workspace, remove_directory},
};
use anyhow::{Context, bail, ensure};
use stampede_vocab::{Process, Service};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

/// The name by which `cargo xtask test` knows this.
pub const NAME: &str = "h2spec";

/// The cases that are known to fail, with their reasons.
const EXCEPTIONS: &str = include_str!("h2spec/exceptions.txt");
/// The ports are from here on.
const FIRST_PORT: u16 = 18_200;
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time of one case, in seconds: some wait for a connection to be closed.
const CASE_TIMEOUT_S: &str = "5";
/// Longest time of all cases.
const TIMEOUT: Duration = Duration::from_secs(300);
/// h2spec has more cases than this. Fewer mean that it did not run to its end.
const LEAST_CASES: usize = 100;

/// Begins a line of a case that does not fail each time.
const SOMETIMES: &str = "sometimes: ";

/// Runs all cases. Fails for a case that fails and is no exception, and for an exception that passes, unless it is
/// listed as one that fails sometimes.
pub fn run(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    setup::redis()?;
    let h2spec = setup::h2spec(workspace)?;
    let program = mesh::build(workspace, Profile::Dev)?;
    let run = workspace.run("test").join(std::process::id().to_string());
    let mut fleet = Fleet::open(&run)?;
    let port = start_gateway(&mut fleet, workspace, &program)?;
    let report = examine(&mut fleet, &h2spec, port)?;
    fleet.stop();
    let cases = cases(&report)?;
    ensure!(cases.len() >= LEAST_CASES, "h2spec reported {} cases: see {}", cases.len(), run.display());
    let faults = faults(&cases, &exceptions(EXCEPTIONS)?);
    for fault in &faults {
        say(&format!("  {fault}"));
    }
    println!("{} cases, {} faults", cases.len(), faults.len());
    if !faults.is_empty() {
        say(&format!("the output of h2spec is in {}", run.display()));
        return Ok(ExitCode::FAILURE);
    }
    remove_directory(&run)?;
    Ok(ExitCode::SUCCESS)
}

/// Starts a Redis, and a gateway whose services are all away. Returns the gateway's port.
fn start_gateway(fleet: &mut Fleet, workspace: &Workspace, program: &Path) -> anyhow::Result<u16> {
    let mut ports = Ports::default();
    let mut port = |what: &str| ports.pick(what, None, FIRST_PORT);
    let (redis, gateway, admin) = (port("Redis")?, port("the gateway")?, port("the gateway's admin side")?);
    let redis_url = servers::start_redis(fleet, workspace, redis)?;
    let step = Step::begin(Process::Gateway.name(), "starting");
    let at = |port: u16| format!("{}:{port}", Ipv4Addr::LOCALHOST);
    let secrets = Secrets::of_run(fleet.run())?;
    let mut env = vec![
        ("STAMPEDE_LISTEN_ADDR".to_owned(), at(gateway)),
        ("STAMPEDE_ADMIN_ADDR".to_owned(), at(admin)),
        ("STAMPEDE_REDIS_URL".to_owned(), redis_url),
        (secrets::AUTH.to_owned(), secrets.auth),
        (secrets::MESH.to_owned(), secrets.mesh),
        // All cases come from one address.
        ("STAMPEDE_ADDRESS_SHARE_PERCENT".to_owned(), "100".to_owned()),
    ];
    env.extend(Service::ALL.map(|service| (service.urls_variable(), format!("http://{}", at(1)))));
    fleet.start(Launch {
        name: Process::Gateway.to_string(),
        tier: Tier::Gateway,
        program: program.to_owned(),
        args: ["serve", "gateway"].into_iter().map(Into::into).collect(),
        env,
        identity: Identity::Own,
        stop_timeout: STOP_TIMEOUT,
    })?;
    fleet.wait_ready(Process::Gateway.name(), READY_TIMEOUT, || probe::http_answers(gateway))?;
    step.done(&at(gateway));
    Ok(gateway)
}

/// Runs h2spec to its end, and returns its report: XML of JUnit.
fn examine(fleet: &mut Fleet, h2spec: &Path, port: u16) -> anyhow::Result<String> {
    let (log, report): (PathBuf, PathBuf) = (fleet.run().join("h2spec.log"), fleet.run().join("h2spec.xml"));
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(h2spec);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--path", "/", "--timeout", CASE_TIMEOUT_S]);
    command.arg("--junit-report").arg(&report).stdout(output);
    let step = Step::begin(NAME, "running its cases");
    let mut beside = Beside::start(command)?;
    let deadline = Instant::now() + TIMEOUT;
    // Its exit code shows that a case has failed; the report names it.
    while beside.ended()?.is_none() {
        fleet.check()?;
        if Instant::now() > deadline {
            bail!("h2spec did not end within {} s; its output is {}", TIMEOUT.as_secs(), log.display());
        }
        thread::sleep(TICK);
    }
    step.done("done");
    fs::read_to_string(&report).with_context(|| format!("h2spec wrote no report; its output is {}", log.display()))
}

/// The outcome of each case by its name, which is `section | case`: whether it passed.
type Cases = BTreeMap<String, bool>;

fn cases(report: &str) -> anyhow::Result<Cases> {
    let texts = report.split("<testcase ").skip(1);
    let case = |text: &str| {
        let name = format!("{} | {}", attribute(text, "package")?, attribute(text, "classname")?);
        Some((name, !text.contains("<failure") && !text.contains("<error")))
    };
    texts.map(case).collect::<Option<Cases>>().context("a case in the report of h2spec has no name")
}

fn attribute(text: &str, name: &str) -> Option<String> {
    let value = text.split_once(&format!("{name}=\""))?.1.split_once('"')?.0;
    let plain = value.replace("&#34;", "\"").replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">");
    Some(plain.replace("&amp;", "&"))
}

/// The cases that may fail by their names: whether they fail each time.
type Exceptions = BTreeMap<String, bool>;

/// Reads the cases that may fail. Each has a reason.
fn exceptions(text: &str) -> anyhow::Result<Exceptions> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let exception = |line: &str| {
        let (case, reason) = line.rsplit_once(" | ").with_context(|| format!("not a case and a reason: {line}"))?;
        ensure!(case.contains(" | ") && !reason.trim().is_empty(), "not a section, a case and a reason: {line}");
        let name = case.strip_prefix(SOMETIMES);
        Ok((name.unwrap_or(case).to_owned(), name.is_none()))
    };
    lines.map(exception).collect()
}

/// Returns the deviations from the expected outcomes, one sentence each.
fn faults(cases: &Cases, exceptions: &Exceptions) -> Vec<String> {
    let failed = cases.iter().filter(|(name, passed)| !**passed && !exceptions.contains_key(*name));
    let failed = failed.map(|(name, _)| format!("failed: {name}"));
    let listed = exceptions.iter().filter_map(|(name, fails_always)| match cases.get(name) {
        None => Some(format!("an exception, and no case: {name}")),
        Some(true) if *fails_always => Some(format!("an exception, and does not fail: {name}")),
        Some(_) => None,
    });
    failed.chain(listed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="3.5. Preface" package="http2/3.5" id="3.5" tests="2" skipped="0" failures="0" errors="1">
    <testcase package="http2/3.5" classname="Sends a &#34;preface&#34;" time="0.0003"></testcase>
    <testcase package="http2/3.5" classname="Sends none" time="2.0001">
      <error>Timeout</error>
    </testcase>
  </testsuite>
</testsuites>"#;

    #[test]
    fn each_case_is_read_with_its_outcome() {
        let cases = cases(REPORT).expect("a report");
        assert!(cases["http2/3.5 | Sends a \"preface\""]);
        assert!(!cases["http2/3.5 | Sends none"]);
    }

    #[test]
    fn a_failure_is_a_fault_unless_listed_and_a_pass_is_if_listed() {
        let cases = cases(REPORT).expect("a report");
        let judged = |text: &str| faults(&cases, &exceptions(text).expect("exceptions"));
        assert_eq!(judged(""), ["failed: http2/3.5 | Sends none"]);
        assert!(judged("# why\nhttp2/3.5 | Sends none | a reason").is_empty());
        let both = "http2/3.5 | Sends none | a reason\nhttp2/3.5 | Sends a \"preface\" | a reason";
        assert_eq!(judged(both), ["an exception, and does not fail: http2/3.5 | Sends a \"preface\""]);
        let other = "http2/3.5 | Sends none | a reason\nhttp2/9 | Sends much | a reason";
        assert_eq!(judged(other), ["an exception, and no case: http2/9 | Sends much"]);
    }

    #[test]
    fn a_flaky_case_is_a_fault_neither_when_it_fails_nor_when_it_passes() {
        let cases = cases(REPORT).expect("a report");
        let text = "sometimes: http2/3.5 | Sends none | a reason\n\
                    sometimes: http2/3.5 | Sends a \"preface\" | a reason";
        let listed = exceptions(text).expect("exceptions");
        assert_eq!(listed.len(), 2);
        assert!(faults(&cases, &listed).is_empty());
        let gone = exceptions("sometimes: http2/9 | Sends much | a reason").expect("exceptions");
        assert_eq!(faults(&cases, &gone).len(), 2, "a case that there is not, and one that fails");
    }

    #[test]
    fn every_exception_has_a_reason() {
        exceptions(EXCEPTIONS).expect("the list can be read");
        exceptions("http2/3.5 | Sends none").expect_err("no reason");
    }
}
