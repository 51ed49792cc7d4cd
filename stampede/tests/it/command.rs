//! The command line without a mesh: help, tokens, completions, JSON, and refusals.

use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
use tempfile::TempDir;

const SECRET: &str = "a secret of the tests, 32 bytes or more";

/// The command in an environment without variables of a mesh.
pub fn stampede(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stampede"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STAMPEDE_")) {
        command.env_remove(name);
    }
    command.args(args);
    command
}

pub fn run(args: &[&str]) -> Output {
    stampede(args).output().unwrap()
}

pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The one JSON document on stdout of a command that could not do its work.
pub fn json_error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["error"]["message"].as_str().unwrap().to_owned()
}

fn good_sale() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flash-sale.toml")).unwrap()
}

fn sale_file(folder: &TempDir, text: &str) -> PathBuf {
    let file = folder.path().join("sale.toml");
    fs::write(&file, text).unwrap();
    file
}

/// A gateway's answer to a request line: status and body.
type Answers = fn(&str) -> (&'static str, &'static str);

/// Returns the address of an HTTP server that answers as a gateway would.
pub fn gateway(answers: Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream, answers));
        }
    });
    url
}

/// Answers one request after the other, until the connection ends.
fn serve(mut stream: TcpStream, answers: Answers) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?);
    loop {
        let request = line(&mut lines)?;
        let mut length = 0;
        while let Some(header) = line(&mut lines).filter(|header| !header.is_empty()) {
            if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        lines.read_exact(&mut vec![0; length]).ok()?;
        let (status, body) = answers(&request);
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).ok()?;
    }
}

fn line(lines: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    (lines.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
}

const EVENT: &str = r#"{"event_id":"evt_0000000000000000000000001a","open_time":"2026-01-02T03:04:05Z",
    "actual_open_time":"2026-01-02T03:04:05.001Z","items":[{"item_id":"itm_0000000000000000000000001a"}]}"#;
const STOCK: &str = r#"{"stocks":[{"item_id":"itm_0000000000000000000000001a","total_units":5,"left_units":5,
    "committed_units":0,"held_units":0,"left_gift_units":0}]}"#;
const PLACED: &str = r#"{"order_id":"ord_0000000000000000000000001a","state":"ORDER_STATE_AWAITING_PAYMENT","arrival":"1",
    "version":"1","create_time":"2026-01-02T03:04:05Z","update_time":"2026-01-02T03:04:05Z"}"#;
/// The same, to be paid within ten minutes.
const PAYABLE: &str = r#"{"order_id":"ord_0000000000000000000000001a","state":"ORDER_STATE_AWAITING_PAYMENT","arrival":"1",
    "version":"1","create_time":"2026-01-02T03:04:05Z","update_time":"2026-01-02T03:04:05Z",
    "pay_deadline":"2026-01-02T03:14:05Z"}"#;

/// The answers that are the same in every test: all but those about orders.
fn mesh(request: &str) -> (&'static str, &'static str) {
    match request.split(' ').collect::<Vec<_>>()[..] {
        ["POST", "/v1/auth/tokens", _] => ("200 OK", r#"{"access_token":"t"}"#),
        ["GET", path, _] if path.ends_with("/stock") => ("200 OK", STOCK),
        ["GET", path, _] if path.starts_with("/v1/orders?") => ("200 OK", r#"{"orders":[],"next_page_token":""}"#),
        _ => ("200 OK", EVENT),
    }
}

/// Five buyers in half a second, a second from now.
const SMALL_SALE: &str = r#"
name = "Small"
opens_in_ms = 1_000
lasts_ms = 2_000
pay_window_ms = 6_000
[[items]]
title = "Shoe"
price = { minor_units = 9_900, currency = "EUR" }
units = 5
limit_per_buyer = 1
[crowd]
buyers = 5
spread_ms = 500
"#;

#[test]
fn help_has_an_example_of_everything() {
    for command in [
        &[][..],
        &["prepare"],
        &["simulate"],
        &["audit"],
        &["messages"],
        &["messages", "replay"],
        &["payments"],
        &["payments", "settle"],
        &["token"],
        &["openapi"],
        &["completions"],
    ] {
        let output = run(&[command, &["--help"]].concat());
        assert!(output.status.success() && output.stderr.is_empty(), "{command:?}: {output:?}");
        assert!(out(&output).contains("Example"), "{command:?}: {}", out(&output));
    }
    for variable in
        ["STAMPEDE_ADMIN_DATABASE_URL", "STAMPEDE_REDIS_URL", "STAMPEDE_KAFKA_BROKERS", "STAMPEDE_PROVIDER_URL"]
    {
        assert!(out(&run(&["audit", "--help"])).contains(variable), "{variable}");
    }
    for variable in ["STAMPEDE_GATEWAY_URL", "STAMPEDE_AUTH_SECRET"] {
        assert!(out(&run(&["simulate", "--help"])).contains(variable), "{variable}");
    }
}

#[test]
fn a_token_is_made_from_the_secret_of_the_environment_which_is_never_shown() {
    let token = stampede(&["token", "--role", "buyer"]).env("STAMPEDE_AUTH_SECRET", SECRET).output().unwrap();
    assert_eq!(out(&token).trim_end().split('.').count(), 3, "{token:?}");
    let json = stampede(&["-o", "json", "token"]).env("STAMPEDE_AUTH_SECRET", SECRET).output().unwrap();
    let made: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(made["user_id"].as_str().unwrap().starts_with("usr_"), "{made}");
    assert_eq!(made["access_token"].as_str().unwrap().split('.').count(), 3, "{made}");
    let help = stampede(&["token", "--help"]).env("STAMPEDE_AUTH_SECRET", SECRET).output().unwrap();
    assert!(!out(&help).contains(SECRET), "{}", out(&help));
}

#[test]
fn a_secret_that_is_too_short_makes_no_token() {
    let output = run(&["token", "--auth-secret", "short"]);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(2), ""));
    assert!(err(&output).contains("has 5 bytes, but needs 32"), "{}", err(&output));
    assert!(json_error(&run(&["-o", "json", "token", "--auth-secret", "short"])).contains("needs 32"));
}

#[test]
fn completions_are_for_shells_and_not_json() {
    let bash = run(&["completions", "bash"]);
    assert!(bash.status.success() && out(&bash).contains("complete -F _stampede"), "{bash:?}");
    assert!(json_error(&run(&["-o", "json", "completions", "bash"])).contains("-o json is for results"));
}

#[test]
fn a_command_line_that_is_none_is_an_error_in_json_too() {
    assert!(json_error(&run(&["audit", "--colour", "-o", "json"])).contains("--colour"));
    let text = run(&["audit", "--colour"]);
    assert_eq!((text.status.code(), out(&text).as_str()), (Some(2), ""));
}

#[test]
fn an_audit_without_a_mesh_cannot_do_its_work() {
    let nobody = ["--database-url", "mysql://root@127.0.0.1:1", "--redis-url", "redis://127.0.0.1:1"];
    let error =
        json_error(&run(&[&["-o", "json", "audit"][..], &nobody, &["--kafka-brokers", "127.0.0.1:1"]].concat()));
    assert!(error.contains("check --database-url"), "{error}");
}

#[test]
fn an_unknown_key_of_a_sale_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let text = good_sale().replace("buyers = 5_000", "buyers = 5_000\nbots = 3");
    let line = 1 + text.lines().position(|line| line == "bots = 3").unwrap();
    let file = sale_file(&folder, &text);
    let output = run(&["simulate", file.to_str().unwrap(), "--auth-secret", SECRET]);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(2), ""));
    let error = err(&output);
    assert!(error.contains(&format!("line {line}")) && error.contains("unknown field `bots`"), "{error}");
    let error = json_error(&run(&["-o", "json", "simulate", file.to_str().unwrap(), "--auth-secret", SECRET]));
    assert!(error.contains("unknown field `bots`"), "{error}");
}

#[test]
fn a_sale_that_the_gateway_does_not_take_cannot_be_simulated() {
    let folder = tempfile::tempdir().unwrap();
    let file = sale_file(&folder, &good_sale());
    let gateway = gateway(|_| ("401 Unauthorized", r#"{"reason":"UNAUTHENTICATED","detail":"no","trace_id":"t-1"}"#));
    let arguments = ["-o", "json", "simulate", file.to_str().unwrap(), "--auth-secret", SECRET];
    let error = json_error(&run(&[&arguments[..], &["--gateway-url", &gateway, "--buyers", "2"]].concat()));
    assert!(error.contains("a buyer gets no token: UNAUTHENTICATED (no)"), "{error}");
    let error = json_error(&run(&[&arguments[..], &["--gateway-url", "https://127.0.0.1:1"]].concat()));
    assert!(error.contains("must begin with http://"), "{error}");
}

#[test]
fn a_crowd_that_may_not_open_so_many_files_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = sale_file(&folder, &good_sale());
    let simulate = stampede(&["-o", "json", "simulate", file.to_str().unwrap(), "--auth-secret", SECRET]);
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -n 300 && exec "$0" "$@""#]).arg(simulate.get_program()).args(simulate.get_args());
    let error = json_error(&shell.output().unwrap());
    let said = "--max-connections 1024 and 2000 watches need 3088 open files, but the hard limit is 300";
    assert!(error.contains(said), "{error}");
}

#[test]
fn a_sale_with_an_unexpected_outcome_ends_with_1_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (file, report) = (sale_file(&folder, SMALL_SALE), folder.path().join("report.json"));
    let gateway = gateway(|request| match request {
        order if order.starts_with("POST /v1/orders ") => {
            ("500 Internal Server Error", r#"{"reason":"INTERNAL","detail":"no","trace_id":"t-9"}"#)
        }
        other => mesh(other),
    });
    let output = stampede(&["simulate", file.to_str().unwrap(), "--json", report.to_str().unwrap()])
        .env("STAMPEDE_GATEWAY_URL", gateway)
        .env("STAMPEDE_AUTH_SECRET", SECRET)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(out(&output).contains("5 outcomes that the crowd did not expect"), "{}", out(&output));
    assert!(out(&output).contains("INTERNAL: no (trace t-9)"), "{}", out(&output));
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!((&report["as_expected"], &report["unexpected"]["count"]), (&false.into(), &5.into()));
    assert_eq!(
        (&report["outcomes"]["order"]["INTERNAL"], &report["latencies"]["order_refused"]["count"]),
        (&5.into(), &5.into())
    );
    assert!(report["latencies"]["order"].is_null(), "none was accepted: {report}");
    assert_eq!(report["load"]["sent_late"]["count"], 5);
    assert!((1..=5).contains(&report["load"]["in_flight_peak"].as_u64().unwrap()), "{report}");
}

#[test]
fn of_two_clicks_at_once_both_are_accepted_or_it_is_an_anomaly_with_the_reason() {
    static CLICKS: AtomicUsize = AtomicUsize::new(0);
    const CANCELLED: &str = r#"{"order_id":"ord_0000000000000000000000001a","state":"ORDER_STATE_CANCELLED","arrival":"1",
        "version":"2","create_time":"2026-01-02T03:04:05Z","update_time":"2026-01-02T03:04:06Z"}"#;
    const REFUSED: &str = r#"{"reason":"ORDER_NOT_CANCELLABLE","detail":"it is CANCELLED","trace_id":"t-7"}"#;
    let folder = tempfile::tempdir().unwrap();
    let sale = SMALL_SALE.to_owned() + "\ndouble_clickers_percent = 100\ncancel_percent = 100\n";
    let (file, report) = (sale_file(&folder, &sale), folder.path().join("report.json"));
    let gateway = gateway(|request| match request {
        order if order.starts_with("POST /v1/orders ") => ("200 OK", PLACED),
        cancel if cancel.contains(":cancel") => match CLICKS.fetch_add(1, Ordering::Relaxed) {
            0 => ("200 OK", CANCELLED),
            _ => ("409 Conflict", REFUSED),
        },
        other => mesh(other),
    });
    let output = stampede(&["simulate", file.to_str().unwrap(), "--buyers", "1", "--deadline-s", "10"])
        .args(["--gateway-url", &gateway, "--auth-secret", SECRET, "--json", report.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!((output.status.code(), CLICKS.load(Ordering::Relaxed)), (Some(1), 2), "{output:?}");
    let said = "one of two clicks was taken, the other not: ORDER_NOT_CANCELLABLE (it is CANCELLED) (trace t-7)";
    assert!(out(&output).contains("SPLIT_CLICK 1") && out(&output).contains(said), "{}", out(&output));
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!(report["unexpected"]["by_outcome"]["SPLIT_CLICK"], 1);
}

#[test]
fn a_mesh_with_another_pay_window_than_the_sale_is_noticed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = sale_file(&folder, SMALL_SALE);
    let gateway = gateway(|request| match request {
        order if order.starts_with("POST /v1/orders ") => ("200 OK", PAYABLE),
        other => mesh(other),
    });
    let output = stampede(&["-o", "json", "simulate", file.to_str().unwrap()])
        .env("STAMPEDE_GATEWAY_URL", gateway)
        .env("STAMPEDE_AUTH_SECRET", SECRET)
        .output()
        .unwrap();
    let error = json_error(&output);
    assert!(error.contains("wait 600000 ms for their payment, but the sale says pay_window_ms = 6000"), "{error}");
    assert!(error.contains("STAMPEDE_PAY_WINDOW_MS=6000"), "{error}");
}
