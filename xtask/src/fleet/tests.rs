//! Supervision, with shells and sleeps as children.

use super::*;
use crate::{identity::Identity, scratch::Scratch};
use std::process::Stdio;

/// Longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Set for this program, run again by a test, that is to supervise a child in this directory.
const SUPERVISE_IN: &str = "XTASK_TEST_SUPERVISE_IN";

/// A shell that runs `script`, with its own name in `$0`.
fn shell_child(name: &str, tier: Tier, script: &str) -> Launch {
    Launch {
        name: name.into(),
        tier,
        program: "sh".into(),
        args: ["-c", script, name].map(Into::into).to_vec(),
        env: Vec::new(),
        identity: Identity::Own,
        stop_timeout: SOON,
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(TICK);
    }
}

#[test]
fn the_gateway_is_stopped_first_and_the_servers_last() {
    let scratch = Scratch::new("fleet-order");
    let mut fleet = Fleet::open(scratch.path()).expect("writable");
    let order = scratch.path().join("order");
    let script = format!(
        "trap 'echo $0 >> {order}; exit 0' TERM; : > {run}/$0.ready; while :; do sleep 0.02; done",
        order = order.display(),
        run = scratch.path().display()
    );
    let tiers =
        [("redis", Tier::Server), ("sandbox", Tier::Provider), ("event", Tier::Service), ("gateway", Tier::Gateway)];
    for (name, tier) in tiers {
        fleet.start(shell_child(name, tier, &script)).expect("sh is there");
        let ready = scratch.path().join(format!("{name}.ready"));
        fleet.wait_ready(name, SOON, || ready.exists()).expect("it sets its trap");
    }
    assert_eq!(State::read(scratch.path()).expect("readable").expect("written down").children.len(), tiers.len());

    fleet.stop();
    assert_eq!(fs::read_to_string(&order).expect("each has written"), "gateway\nevent\nsandbox\nredis\n");
    assert!(State::read(scratch.path()).expect("readable").is_none(), "a run that has ended leaves nothing to mend");
}

#[test]
fn a_child_that_will_not_stop_is_killed() {
    let scratch = Scratch::new("fleet-stubborn");
    let mut fleet = Fleet::open(scratch.path()).expect("writable");
    let ready = scratch.path().join("ready");
    let script = format!("trap '' TERM; : > {}; while :; do sleep 0.02; done", ready.display());
    let stubborn =
        Launch { stop_timeout: Duration::from_millis(200), ..shell_child("stubborn", Tier::Service, &script) };
    fleet.start(stubborn).expect("sh is there");
    fleet.wait_ready("stubborn", SOON, || ready.exists()).expect("it sets its trap");
    let process = Process::of(fleet.pids(&[Tier::Service])[0]).expect("it runs");

    fleet.stop();
    assert!(!process.is_alive());
}

#[test]
fn what_is_ended_at_once_is_not_asked_to_stop() {
    let scratch = Scratch::new("fleet-at-once");
    let mut fleet = Fleet::open(scratch.path()).expect("writable");
    let (ready, asked) = (scratch.path().join("ready"), scratch.path().join("asked"));
    let script =
        format!("trap ': > {}; exit 0' TERM; : > {}; while :; do sleep 0.02; done", asked.display(), ready.display());
    fleet.start(shell_child("mysql", Tier::Server, &script)).expect("sh is there");
    fleet.wait_ready("mysql", SOON, || ready.exists()).expect("it sets its trap");
    let process = Process::of(fleet.pids(&[Tier::Server])[0]).expect("it runs");

    fleet.end_at_once();
    assert!(!process.is_alive() && !asked.exists());
    assert!(State::read(scratch.path()).expect("readable").is_none(), "a run that has ended leaves nothing to mend");
}

#[test]
fn a_death_is_reported_with_name_status_and_end_of_the_log() {
    let scratch = Scratch::new("fleet-death");
    let mut fleet = Fleet::open(scratch.path()).expect("writable");
    fleet.start(shell_child("healthy", Tier::Server, "exec sleep 60")).expect("sh is there");
    let script = "i=0; while [ $i -lt 40 ]; do echo line-$i-; i=$((i + 1)); done; echo 'no more stock' >&2; exit 3";
    fleet.start(shell_child("inventory", Tier::Service, script)).expect("sh is there");

    let error = fleet.watch().expect_err("a child dies").to_string();
    for part in ["inventory ended on its own", "exit status: 3", "inventory.log", "line-39-", "no more stock"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains("line-5-"), "only the end is shown: {error}");
}

#[test]
fn a_death_while_waiting_for_another_ends_the_wait() {
    let scratch = Scratch::new("fleet-wait");
    let mut fleet = Fleet::open(scratch.path()).expect("writable");
    fleet.start(shell_child("kafka", Tier::Server, "echo 'disk full'; exit 1")).expect("sh is there");
    let error = fleet.wait_ready("order", SOON, || false).expect_err("kafka dies").to_string();
    assert!(error.contains("kafka ended on its own") && error.contains("disk full"), "{error}");
}

#[test]
fn one_that_is_never_ready_is_reported_with_its_log() {
    let scratch = Scratch::new("fleet-slow");
    let mut fleet = Fleet::open(scratch.path()).expect("writable");
    fleet.start(shell_child("order", Tier::Service, "echo 'waits for Kafka'; exec sleep 60")).expect("sh is there");
    let log = scratch.path().join("logs/order.log");
    eventually("it speaks", || fs::read_to_string(&log).is_ok_and(|text| !text.is_empty()));
    let error = fleet.wait_ready("order", Duration::ZERO, || false).expect_err("never ready").to_string();
    assert!(error.contains("order was not ready") && error.contains("waits for Kafka"), "{error}");
}

#[test]
fn a_command_next_to_the_fleet_returns_its_status() {
    let scratch = Scratch::new("fleet-beside");
    let mut fleet = Fleet::open(scratch.path()).expect("writable");
    fleet.start(shell_child("healthy", Tier::Server, "exec sleep 60")).expect("sh is there");
    for code in [0, 3] {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exit {code}")]);
        assert_eq!(fleet.run_command(command).expect("nobody dies").code(), Some(code));
    }
}

#[test]
fn a_death_ends_the_command_next_to_the_fleet_at_once() {
    let scratch = Scratch::new("fleet-beside-death");
    let mut fleet = Fleet::open(scratch.path()).expect("writable");
    let pid_file = scratch.path().join("pid");
    let script = format!("until [ -s {} ]; do sleep 0.02; done; echo 'out of memory'; exit 1", pid_file.display());
    fleet.start(shell_child("payment", Tier::Service, &script)).expect("sh is there");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("echo $$ > {}; exec sleep 60", pid_file.display())]);

    let started = Instant::now();
    let error = fleet.run_command(command).expect_err("payment dies").to_string();
    assert!(started.elapsed() < SOON);
    assert!(error.contains("payment ended on its own") && error.contains("out of memory"), "{error}");
    let pid = fs::read_to_string(&pid_file).expect("written").trim().parse().expect("a process id");
    assert!(!Process::of(pid).is_some_and(Process::is_alive), "the command is not left behind");
}

#[test]
fn one_that_is_ended_on_purpose_is_not_missed_and_its_log_goes_on_when_it_is_back() {
    let scratch = Scratch::new("fleet-struck");
    let mut fleet = Fleet::open(scratch.path()).expect("writable");
    fleet.start(shell_child("order", Tier::Service, "echo up; exec sleep 60")).expect("sh is there");
    let log = scratch.path().join("logs/order.log");
    let said = |times| fs::read_to_string(&log).is_ok_and(|text| text == "up\n".repeat(times));
    eventually("it speaks", || said(1));
    let first = Process::of(fleet.pids(&[Tier::Service])[0]).expect("it runs");

    fleet.kill("order").expect("it runs");
    assert!(!first.is_alive());
    fleet.check().expect("nobody is missed");
    assert!(fleet.kill("order").is_err() && fleet.freeze("order").is_err(), "there is nobody to strike");
    assert!(State::read(scratch.path()).expect("readable").expect("written down").children.is_empty());

    fleet.start_again("order").expect("sh is there");
    eventually("it speaks again", || said(2));
    fleet.terminate(&["order".to_owned()]).expect("it runs");
    fleet.check().expect("nobody is missed");
    assert!(fleet.start_again("inventory").is_err(), "there is none of this name");
}

#[test]
fn one_that_stands_still_stops_with_the_others() {
    let scratch = Scratch::new("fleet-frozen");
    let mut fleet = Fleet::open(scratch.path()).expect("writable");
    fleet.start(shell_child("redis", Tier::Server, "exec sleep 60")).expect("sh is there");
    let process = Process::of(fleet.pids(&[Tier::Server])[0]).expect("it runs");
    fleet.freeze("redis").expect("it runs");
    let started = Instant::now();
    fleet.stop();
    assert!(!process.is_alive() && started.elapsed() < SOON, "it took the wish to stop, and was not killed for it");
}

/// Signals are sent to another process: they would stop the fleets of all tests in this one.
#[test]
fn ctrl_c_and_termination_stop_every_child_and_are_no_error() {
    if let Some(run) = std::env::var_os(SUPERVISE_IN) {
        return supervise(Path::new(&run));
    }
    for wish in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let scratch = Scratch::new(&format!("fleet-{wish}"));
        let mut supervisor = supervisor(scratch.path());
        let child = child_of(scratch.path());
        signal(&supervisor, wish);
        assert!(ends_within(&mut supervisor, SOON), "{wish}");
        assert!(supervisor.wait().expect("it has ended").success(), "{wish}");
        assert!(!child.is_alive(), "{wish}");
    }
}

#[test]
fn a_supervisor_that_is_killed_takes_its_children_along() {
    let scratch = Scratch::new("fleet-killed");
    let mut supervisor = supervisor(scratch.path());
    let child = child_of(scratch.path());
    supervisor.kill().and_then(|()| supervisor.wait()).expect("it is ours");
    eventually("its child ends", || !child.is_alive());
}

/// The main function of the other process.
fn supervise(run: &Path) {
    let mut fleet = Fleet::open(run).expect("writable");
    fleet.start(shell_child("sleeper", Tier::Server, "echo up; exec sleep 60")).expect("sh is there");
    fleet.watch().expect("nobody dies");
}

/// This program again, with the one test that supervises.
fn supervisor(run: &Path) -> Child {
    let program = std::env::current_exe().expect("this program is a file");
    let test = "fleet::tests::ctrl_c_and_termination_stop_every_child_and_are_no_error";
    Command::new(program)
        .args(["--exact", test])
        .env(SUPERVISE_IN, run)
        .stdout(Stdio::null())
        .spawn()
        .expect("this program runs")
}

/// Returns the supervisor's child once it is in the state file and tied to the supervisor: only then it prints.
fn child_of(run: &Path) -> Process {
    let log = run.join("logs/sleeper.log");
    eventually("the child speaks", || fs::read_to_string(&log).is_ok_and(|text| !text.is_empty()));
    let mut child = None;
    eventually("the child is written down", || {
        let state = State::read(run).ok().flatten();
        child = state.and_then(|state| Some(state.children.first()?.process));
        child.is_some()
    });
    child.expect("it was found")
}
