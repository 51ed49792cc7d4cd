//! Commands that start concurrently, and processes that are the first of their container.

use crate::command::stampede;
use stampede_testkit::World;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, Command, Stdio},
    time::{Duration, Instant},
};

/// Runs a program as the first process of a PID namespace, as a container does, and without the rights of root. It ends
/// with its parent.
const AS_FIRST: [&str; 6] = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"];
/// Longest time to stop for a process that has nothing to finish, on a machine that other tests load. One that ignored
/// the signal would wait for its servers for a minute.
const SOON: Duration = Duration::from_secs(10);

fn prepare(world: &World) -> Child {
    stampede(&["prepare", "--database-url", world.database_url(), "--kafka-brokers", world.brokers()])
        .args(["--schema-prefix", &world.schema_prefix(), "--kafka-topic-prefix", world.topic_prefix()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn case_27_of_two_that_prepare_at_once_both_succeed() {
    let world = World::new().unwrap();
    let both = [prepare(&world), prepare(&world)];
    for output in both.map(|child| child.wait_with_output().unwrap()) {
        assert!(output.status.success(), "{output:?}");
    }
}

/// A process that is the first of its namespace.
struct First {
    /// The program that has made the namespace, and that ends as the process does.
    outside: Child,
    stderr: BufReader<ChildStderr>,
}

impl First {
    /// Starts a payment service whose servers are missing; `None` if this machine allows no namespaces.
    fn start() -> Option<Self> {
        let tried = Command::new("unshare").args(AS_FIRST).arg("true").output();
        if !tried.is_ok_and(|tried| tried.status.success()) {
            return None;
        }
        let serve = stampede(&["serve", "payment", "--insecure-mesh", "--kafka-brokers", "127.0.0.1:9"]);
        let mut outside = Command::new("unshare");
        for (name, _) in serve.get_envs() {
            outside.env_remove(name);
        }
        let mut outside = outside
            .args(AS_FIRST)
            .arg(serve.get_program())
            .args(serve.get_args())
            .args(["--database-url", "mysql://nobody@127.0.0.1:9/nothing", "--provider-url", "http://127.0.0.1:9"])
            .args(["--listen-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"])
            .env("STAMPEDE_WEBHOOK_SECRET", "a webhook secret of the tests")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(outside.stderr.take().unwrap());
        Some(Self { outside, stderr })
    }

    /// Reads its log up to a line with this text.
    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "it has ended without {text:?}");
        }
    }

    /// Sends SIGTERM, as the container runtime does.
    fn terminate(&self) {
        let id = self.outside.id();
        let first = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let kill = Command::new("kill").args(["-TERM", first.trim()]).status().unwrap();
        assert!(kill.success(), "case 27: process {first:?} is not there");
    }
}

impl Drop for First {
    fn drop(&mut self) {
        // It may have ended already, which is fine.
        let _ = self.outside.kill();
        let _ = self.outside.wait();
    }
}

/// A signal without a handler is ignored in such a process: it would run until it is killed.
#[test]
fn case_27_the_first_process_of_a_container_stops_at_once_though_its_database_is_not_there() {
    let Some(mut first) = First::start() else {
        println!("left out: this machine lets nobody make namespaces (unshare {})", AS_FIRST.join(" "));
        return;
    };
    first.wait_for("waiting for");
    first.terminate();
    let (asked, mut said) = (Instant::now(), String::new());
    first.stderr.read_to_string(&mut said).unwrap();
    let status = first.outside.wait().unwrap();
    assert_eq!(status.code(), Some(0), "case 27: {said}");
    assert!(asked.elapsed() < SOON, "case 27: it took {:?}: {said}", asked.elapsed());
}
