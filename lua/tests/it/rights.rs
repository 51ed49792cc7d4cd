//! The rights of the processes' Redis user: every command that scripts and processes call, and no other.

use redis::{Cmd, ErrorKind, ServerErrorKind, aio::MultiplexedConnection};
use stampede_lua::{Redis, RedisConfig, RedisError};
use stampede_testkit::OwnRedis;
use stampede_vocab::REDIS_SCRIPT_COMMANDS;
use std::{collections::BTreeSet, fs, path::Path};

/// How a script calls a command, and how it calls one on a key with any number of arguments.
const CALLS: [&str; 3] = ["redis.call(", "redis.pcall(", "on_hash("];
/// The one script text in which the command is a parameter: it defines `on_hash`.
const PRELUDE: &str = "stock/prelude.lua";

fn scripts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let folders = entries(root).filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| entries(&folder).collect::<Vec<_>>()).chain(entries(root));
    let scripts = files.filter(|file| file.extension().is_some_and(|ending| ending == "lua"));
    let named = |file: &Path| file.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    scripts.map(|file| (named(&file), fs::read_to_string(&file).unwrap())).collect()
}

/// The commands that a script names where it calls them.
fn called(name: &str, script: &str) -> BTreeSet<String> {
    let rests = CALLS.iter().flat_map(|call| script.match_indices(call).map(|(at, call)| &script[at + call.len()..]));
    let command = |rest: &str| match rest.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) {
        Some((command, _)) => Some(command.to_owned()),
        None => {
            assert_eq!(
                name,
                PRELUDE,
                "{name} calls something that nobody can read here: {}",
                rest.lines().next().unwrap_or_default()
            );
            None
        }
    };
    rests.filter_map(command).collect()
}

#[test]
fn the_commands_that_scripts_call_are_those_of_the_rules() {
    let scripts = scripts();
    assert!(scripts.len() > 15, "{}", scripts.len());
    let called: BTreeSet<_> = scripts.iter().flat_map(|(name, script)| called(name, script)).collect();
    let allowed: BTreeSet<_> = REDIS_SCRIPT_COMMANDS.iter().map(|command| (*command).to_owned()).collect();
    assert_eq!(called, allowed, "what scripts call, and what kit/vocab/src/redis_user.rs allows");
}

async fn connect(url: String) -> Result<Redis, RedisError> {
    Redis::connect(RedisConfig { url, key_prefix: "t:".into() }).await
}

async fn is_forbidden(conn: &MultiplexedConnection, command: &Cmd) -> bool {
    let answer = command.exec_async(&mut conn.clone()).await;
    answer.is_err_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm))
}

#[tokio::test]
async fn nothing_rules_over_the_server_or_over_other_clients() {
    // A server that has DEBUG switched off refuses it to everybody, before it looks at rights.
    let server = OwnRedis::start(&[("enable-debug-command", "yes")]).await.unwrap();
    let conn = redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let forbidden = [
        "CONFIG GET maxmemory",
        "CONFIG SET maxmemory 1",
        "KEYS *",
        "SCAN 0",
        "FLUSHALL",
        "FLUSHDB",
        "SHUTDOWN NOSAVE",
        "CLIENT KILL TYPE normal",
        "CLIENT PAUSE 1",
        "DEBUG SLEEP 0",
        "ACL WHOAMI",
        "MONITOR",
        "REPLICAOF NO ONE",
        "SUBSCRIBE news",
    ];
    for line in forbidden {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        assert!(is_forbidden(&conn, &command).await, "{line}");
    }
    for (call, is_allowed) in [("redis.call('TIME')", true), ("redis.call('KEYS', '*')", false)] {
        let mut script = redis::cmd("EVAL");
        script.arg(format!("return {call}")).arg(0);
        let answer = script.exec_async(&mut conn.clone()).await;
        assert_eq!(answer.is_ok(), is_allowed, "a script has the rights of who runs it: {call} {answer:?}");
    }
}

#[tokio::test]
async fn a_redis_whose_settings_must_not_be_read_is_checked_all_the_same() {
    let publishing = OwnRedis::start(&[("notify-keyspace-events", "Ex"), ("maxmemory", "50mb")]).await.unwrap();
    let redis = connect(publishing.url()).await.unwrap();
    redis.require_noeviction().await.unwrap();
    redis.require_expiry_notifications().await.unwrap();
    assert_eq!(redis.frees_lazily().await.unwrap(), None);
    let memory = redis.memory().await.unwrap();
    assert!(memory.used_bytes > 0 && memory.max_bytes == 50 * 1_024 * 1_024, "{memory:?}");

    let silent = OwnRedis::start(&[("maxmemory-policy", "allkeys-lru")]).await.unwrap();
    let redis = connect(silent.url()).await.unwrap();
    let error = redis.require_expiry_notifications().await.unwrap_err().to_string();
    assert!(error.contains("no notification came") && error.contains("notify-keyspace-events Ex"), "{error}");
    let error = redis.require_noeviction().await.unwrap_err().to_string();
    assert!(error.contains("allkeys-lru"), "{error}");
}

#[tokio::test]
async fn an_administrator_is_checked_by_the_settings() {
    let server = OwnRedis::start(&[("lazyfree-lazy-expire", "no")]).await.unwrap();
    let redis = connect(server.admin_url()).await.unwrap();
    let error = redis.require_expiry_notifications().await.unwrap_err().to_string();
    assert!(error.contains("notify-keyspace-events is \"\""), "{error}");
    assert_eq!(redis.frees_lazily().await.unwrap(), Some(false));
    let lazy = OwnRedis::start(&[]).await.unwrap();
    assert_eq!(connect(lazy.admin_url()).await.unwrap().frees_lazily().await.unwrap(), Some(true));
}

#[tokio::test]
async fn the_last_fifth_of_the_memory_is_not_for_what_is_new() {
    let server = OwnRedis::start(&[("maxmemory", "50mb")]).await.unwrap();
    let redis = connect(server.url()).await.unwrap();
    redis.require_room().await.unwrap();
    server.fill(45).await.unwrap();
    let error = redis.require_room().await.unwrap_err();
    assert!(matches!(error, RedisError::Filled(memory) if memory.used_bytes > 45_000_000), "{error}");
}

#[tokio::test]
async fn a_password_is_in_no_error() {
    let server = OwnRedis::start(&[]).await.unwrap();
    let wrong = server.url().replace(server.password(), "not-the-right-one");
    let Err(error) = connect(wrong).await else { panic!("logged in with a wrong password") };
    assert!(!format!("{error} {error:?}").contains("not-the-right-one"), "{error:?}");
}
