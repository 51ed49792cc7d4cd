//! Commands of containers and load tests, without a mesh: secrets, health checks, many tokens, seeds.

use crate::command::{err, gateway, json_error, out, run, stampede};
use std::{collections::HashSet, fs, os::unix::fs::PermissionsExt, path::Path};

#[test]
fn secrets_are_made_once_each_as_a_file_and_feed_the_flags_that_take_files() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    let make = |host: &str| run(&["secrets", "--directory", directory, "--database-host", host]);
    let made = make("127.0.0.1:3306");
    assert!(made.status.success() && out(&made).contains("made auth/secret"), "{made:?}");
    let read = |name: &str| fs::read_to_string(Path::new(directory).join(name)).unwrap();
    let (secret, password) = (read("auth/secret"), read("database/password"));
    assert_eq!(read("database/order_url"), format!("mysql://stampede:{password}@127.0.0.1:3306/stampede_order"));
    let mode = fs::metadata(folder.path().join("auth/secret")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o400);

    assert!(!Path::new(directory).join("redis").exists(), "nobody asked for it");

    let again = make("db:3306");
    assert!(out(&again).contains("kept auth/secret"), "{again:?}");
    assert_eq!(read("auth/secret"), secret);
    assert!(read("database/url").ends_with("@db:3306"));
    assert!(!format!("{made:?}{again:?}").contains(&secret), "a secret was printed");

    let file = folder.path().join("auth/secret");
    let token = run(&["token", "--auth-secret-file", file.to_str().unwrap()]);
    assert!(token.status.success() && out(&token).split('.').count() == 3, "{token:?}");
    let by_variable = stampede(&["token"]).env("STAMPEDE_AUTH_SECRET_FILE", &file).output().unwrap();
    assert!(by_variable.status.success(), "{by_variable:?}");
}

#[test]
fn the_users_and_urls_of_redis_have_the_same_password_and_an_administrator_another() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    let make = || {
        let hosts = ["--database-host", "db:3306", "--redis-host", "redis:6379"];
        run(&[&["secrets", "--directory", directory][..], &hosts[..]].concat())
    };
    let (made, again) = (make(), make());
    assert!(made.status.success() && again.status.success(), "{made:?} {again:?}");
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let (password, admin) = (read("redis/password"), read("redis-server/admin_password"));
    assert_eq!(read("redis/url"), format!("redis://stampede:{password}@redis:6379/0"));
    assert_eq!(read("redis/event_url"), format!("redis://stampede:{password}@redis:6379/1"));
    let users = read("redis-server/users.acl");
    assert!(users.contains(&format!("user stampede reset on >{password} ")), "{users}");
    assert!(users.contains(&format!("user admin reset on >{admin} ")) && password != admin, "{users}");
    for secret in [&password, &admin] {
        assert!(!format!("{made:?}{again:?}").contains(secret.as_str()), "a secret was printed");
    }
}

#[test]
fn a_secret_that_is_given_twice_or_not_to_be_read_is_refused_by_its_flag() {
    let twice = run(&["token", "--auth-secret", "x", "--auth-secret-file", "/dev/null"]);
    assert_eq!(twice.status.code(), Some(2));
    assert!(err(&twice).contains("--auth-secret-file exclude each other"), "{twice:?}");
    let missing = run(&["serve", "gateway", "--redis-url", "redis://x", "--auth-secret-file", "/no/such/file"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(err(&missing).contains("--auth-secret-file /no/such/file"), "{missing:?}");
}

#[test]
fn bad_secrets_arguments_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    for (host, mode, named) in [("db@evil:1", "400", "--database-host"), ("db:1", "044", "--mode")] {
        let refused = run(&["secrets", "--directory", directory, "--database-host", host, "--mode", mode]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(err(&refused).contains(named), "{refused:?}");
    }
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
}

#[test]
fn a_health_check_tells_ready_from_not_ready_and_from_nobody() {
    // Patient: the gateway below is this process, which other tests keep busy.
    let check = |target: &str| run(&["healthcheck", target, "--timeout-ms", "30000"]).status.code();
    assert_eq!(check(&format!("{}/healthz", gateway(|_| ("200 OK", "")))), Some(0));
    assert_eq!(check(&format!("{}/healthz", gateway(|_| ("503 Service Unavailable", "")))), Some(1));
    assert_eq!(check("127.0.0.1:1"), Some(2));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    assert!(json_error(&run(&["-o", "json", "healthcheck", &silent, "--timeout-ms", "50"])).contains("within 50 ms"));
    assert!(err(&run(&["healthcheck", "7204"])).contains("HOST:PORT"));
}

#[test]
fn tokens_for_a_crowd_are_lines_under_a_header_each_of_another_user() {
    let secret = "a secret of the tests, 32 bytes or more";
    let made = run(&["token", "--role", "buyer", "--count", "3", "--csv", "--auth-secret", secret]);
    let text = out(&made);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (4, "user,token"));
    let users: HashSet<&str> = lines[1..].iter().filter_map(|line| line.split(',').next()).collect();
    assert!(users.len() == 3 && users.iter().all(|user| user.starts_with("usr_")), "{text}");
    assert_eq!(run(&["token", "--count", "0", "--auth-secret", secret]).status.code(), Some(2));
}

#[test]
fn an_entry_for_the_services_ports_is_made_from_the_secret_of_the_mesh() {
    let secret = stampede_testkit::MESH_SECRET;
    let made = |flags: &[&str]| {
        let output = run(&[&["token", "--mesh", "--mesh-secret", secret][..], flags].concat());
        assert!(output.status.success(), "{output:?}");
        out(&output).trim_end().to_owned()
    };
    assert!(made(&[]).starts_with("1.operator.operator.usr_"), "an operator's by default");
    assert!(made(&["--from", "order"]).starts_with("1.order.service.."));
    assert!(made(&["--role", "buyer", "--any-user"]).starts_with("1.operator.buyer.*."));
    assert!(made(&["-o", "json"]).contains("x-stampede-identity"));
    for (flags, named) in [
        (vec!["--mesh"], "--mesh-secret"),
        (vec!["--mesh", "--mesh-secret", "short"], "at least 32"),
        (vec!["--mesh", "--mesh-secret", secret, "--count", "2"], "--count"),
        (vec!["--mesh", "--mesh-secret", secret, "--from", "root"], "no process"),
        (vec!["--any-user"], "--mesh"),
    ] {
        let refused = run(&[&["token"][..], &flags].concat());
        assert_eq!(refused.status.code(), Some(2), "{flags:?}");
        assert!(err(&refused).contains(named), "{refused:?}");
    }
}

#[test]
fn a_seed_names_the_file_or_the_answer_that_is_wrong() {
    let secret = "a secret of the tests, 32 bytes or more";
    let missing = run(&["-o", "json", "seed", "no-such.toml", "--auth-secret", secret]);
    assert!(json_error(&missing).contains("no-such.toml"));
    let refusing = gateway(|_| ("403 Forbidden", r#"{"reason":"PERMISSION_DENIED","detail":"no","trace_id":"t"}"#));
    let sale = concat!(env!("CARGO_MANIFEST_DIR"), "/../ghz-bench/sale.toml");
    let refused = run(&["-o", "json", "seed", sale, "--auth-secret", secret, "--gateway-url", &refusing]);
    assert!(json_error(&refused).contains("PERMISSION_DENIED"));
}
