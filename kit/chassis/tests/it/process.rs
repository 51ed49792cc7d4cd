//! A process from the outside: signals, exit codes, and what it says on stderr.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, ChildStderr, Command, Stdio},
    time::{Duration, Instant},
};

/// Of the line that says that it serves.
const SERVES: &str = "\"message\":\"serves\"";

/// The example `bare`, started with these flags on free ports.
struct Bare {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Bare {
    fn start(flags: &[&str]) -> Bare {
        Bare::of(Command::new(example("bare")), flags)
    }

    /// The same by a command that ends in starting it.
    fn of(mut command: Command, flags: &[&str]) -> Bare {
        let mut child = command
            .args(["--listen-addr", "127.0.0.1:0", "--log-format", "json", "--insecure-mesh"])
            .args(flags)
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .expect("a whole `cargo test` builds the example; for this file alone, build it first");
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        Bare { child, stderr }
    }

    /// Reads stderr up to a line with this text, and returns it.
    fn wait_for(&mut self, text: &str) -> String {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let read = self.stderr.read_line(&mut line).expect("stderr is text");
            assert_ne!(read, 0, "ended without {text:?}");
        }
        line
    }

    /// Waits until it takes signals: one that comes before ends it at once, and without a code.
    fn wait_until_it_takes_signals(&self) {
        /// The bit of SIGTERM in the mask of the signals that a process has a handler for.
        const TERM: u64 = 1 << 14;
        let status = format!("/proc/{}/status", self.child.id());
        let started = Instant::now();
        loop {
            let status = fs::read_to_string(&status).expect("the child is ours");
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("Linux says so");
            if u64::from_str_radix(caught.trim(), 16).expect("a mask") & TERM != 0 {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "it takes no signals");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(kill.expect("kill is everywhere").success());
    }

    /// The exit code, the rest of stderr, and how long it took.
    fn end(mut self) -> (Option<i32>, String, Duration) {
        let started = Instant::now();
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).expect("stderr is text");
        let status = self.child.wait().expect("the child is ours");
        (status.code(), text, started.elapsed())
    }
}

impl Drop for Bare {
    /// A test that fails leaves nothing running.
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    let profile = test.ancestors().nth(2).expect("tests are in target/<profile>/deps");
    profile.join("examples").join(name)
}

#[test]
fn a_signal_stops_it_in_order() {
    for signal in ["-TERM", "-INT"] {
        let mut bare = Bare::start(&[]);
        bare.wait_for(SERVES);
        bare.signal(signal);
        let (code, stderr, _) = bare.end();
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stderr.contains("\"message\":\"stopped\""), "{stderr}");
    }
}

#[test]
fn a_log_that_takes_no_more_ends_no_process() {
    let mut shell = Command::new("sh");
    // Whatever is written to this device fails as on a full disk. What the test reads of stderr is nothing.
    shell.args(["-c", r#"exec "$0" "$@" 2>/dev/full"#]).arg(example("bare"));
    let bare = Bare::of(shell, &["--log-filter", "trace"]);
    bare.wait_until_it_takes_signals();
    bare.signal("-TERM");
    let (code, _, _) = bare.end();
    assert_eq!(code, Some(0), "it was to stop in order");
}

#[test]
fn it_may_open_as_many_files_as_the_hard_limit_allows() {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -Sn 256 && ulimit -Hn 512 && exec "$0" "$@""#]).arg(example("bare"));
    let mut bare = Bare::of(shell, &[]);
    let line = bare.wait_for(SERVES);
    assert!(line.contains("\"process.open_files.limit\":512"), "{line}");
    assert!(line.contains("\"service.name\":\"stampede-sandbox\""), "{line}");
    bare.signal("-TERM");
    assert_eq!(bare.end().0, Some(0));
}

#[test]
fn a_refusal_to_start_is_one_line_and_exit_code_1() {
    let (code, stderr, _) = Bare::start(&["--refuse", "Redis evicts keys:\n  set maxmemory-policy noeviction"]).end();
    assert_eq!(code, Some(1));
    assert_eq!(stderr, "stampede-sandbox: cannot start: Redis evicts keys: set maxmemory-policy noeviction\n");
}

#[test]
fn a_process_that_was_not_told_whom_to_believe_does_not_start() {
    let output = Command::new(example("bare")).args(["--listen-addr", "127.0.0.1:0"]).output();
    let output = output.expect("the example is built");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("stampede-sandbox: cannot start: --mesh-secret-file is missing"), "{stderr}");
}

#[test]
fn a_process_that_cannot_start_stops_the_workers_that_it_has() {
    let (code, stderr, _) = Bare::start(&["--refuse", "no", "--tidy-up-ms", "100", "--log-filter", "info"]).end();
    assert_eq!(code, Some(1));
    assert!(stderr.contains("tidied up"), "{stderr}");
}

#[test]
fn a_filter_that_cannot_be_read_is_refused_with_its_flag() {
    let (code, stderr, _) = Bare::start(&["--log-filter", "stampede=loud"]).end();
    assert_eq!(code, Some(2));
    assert!(stderr.contains("invalid value 'stampede=loud' for '--log-filter <FILTER>'"), "{stderr}");
}

#[test]
fn a_start_that_waits_can_be_stopped() {
    let mut bare = Bare::start(&["--hang", "--log-filter", "debug"]);
    bare.wait_until_it_takes_signals();
    bare.signal("-TERM");
    bare.wait_for("signalled to stop before it had started");
    assert_eq!(bare.end().0, Some(0));
}

#[test]
fn a_second_signal_cuts_the_drain_short() {
    let mut bare = Bare::start(&["--tidy-up-ms", "9000"]);
    bare.wait_for(SERVES);
    bare.signal("-TERM");
    bare.wait_for("drains");
    bare.signal("-TERM");
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(bare.child.try_wait().expect("the child is ours"), None, "an echo of the first signal is none");
    bare.signal("-INT");
    let (code, stderr, took) = bare.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_collector_that_is_not_there_does_not_hold_up_the_exit() {
    let mut bare = Bare::start(&["--otlp-endpoint", "http://127.0.0.1:1"]);
    bare.wait_for(SERVES);
    bare.signal("-TERM");
    let (code, stderr, took) = bare.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}
