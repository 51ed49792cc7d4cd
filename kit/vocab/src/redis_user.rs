//! The ACL of the Redis user of all processes.

/// Name of the user.
pub const REDIS_USER: &str = "stampede";

/// The commands that scripts call. Redis checks the rights of the user that runs a script for each of them.
pub const REDIS_SCRIPT_COMMANDS: &[&str] = &[
    "DEL",
    "EXPIRE",
    "GET",
    "HDEL",
    "HEXISTS",
    "HGET",
    "HLEN",
    "HMGET",
    "HSCAN",
    "HSET",
    "HSETNX",
    "HVALS",
    "INFO",
    "PEXPIRE",
    "PEXPIREAT",
    "SET",
    "TIME",
    "UNLINK",
    "ZADD",
    "ZCARD",
    "ZCOUNT",
    "ZRANGE",
    "ZREM",
    "ZREMRANGEBYSCORE",
    "ZSCORE",
];

/// Keys, channels, and the commands that processes themselves send, except INFO and TIME, which scripts call too. All
/// others are refused: CONFIG, KEYS, FLUSHALL, DEBUG, SHUTDOWN, ACL and so on.
const RIGHTS: &[&str] = &[
    "~*",
    // Channel of expired keys of each logical database.
    "&__keyevent@*__:expired",
    "-@all",
    // Handshake of a connection, which may not touch other connections. Subcommands differ by version, and an unknown
    // one would be an error.
    "+auth",
    "+hello",
    "+ping",
    "+select",
    "+unwatch",
    "+client",
    "-client|caching",
    "-client|getredir",
    "-client|kill",
    "-client|list",
    "-client|no-evict",
    "-client|pause",
    "-client|reply",
    "-client|tracking",
    "-client|trackinginfo",
    "-client|unblock",
    "-client|unpause",
    "+subscribe",
    "+unsubscribe",
    // The slots of each node of a cluster.
    "+cluster|nodes",
    "+cluster|shards",
    "+cluster|slots",
    "+asking",
    "+readonly",
    // Scripts.
    "+eval",
    "+evalsha",
    "+script|load",
];

/// Returns the ACL rules of the user with this password, as `ACL SETUSER` and `redis-server --user` take them after the
/// name. The password must have no white space.
pub fn redis_rules(password: &str) -> Vec<String> {
    let login = ["reset".to_owned(), "on".to_owned(), format!(">{password}")];
    let rights = RIGHTS.iter().map(|rule| (*rule).to_owned());
    let called = REDIS_SCRIPT_COMMANDS.iter().map(|command| format!("+{}", command.to_lowercase()));
    login.into_iter().chain(rights).chain(called).collect()
}

/// Returns an ACL file, as `redis-server --aclfile` takes it, of three users: that of the processes; `admin`, with all
/// rights; and the default one, without a password, which may only ping.
pub fn redis_users_file(password: &str, admin_password: &str) -> String {
    let rules = redis_rules(password).join(" ");
    format!(
        "user default reset on nopass +ping\nuser admin reset on >{admin_password} ~* &* +@all\nuser {REDIS_USER} {rules}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rules_over_the_server_or_over_other_clients_is_in_no_rule() {
        let rules = redis_rules("secret");
        assert_eq!(rules[..3], ["reset", "on", ">secret"]);
        let forbidden =
            ["config", "keys", "scan", "flushall", "flushdb", "debug", "shutdown", "acl", "monitor", "replicaof"];
        for rule in &rules {
            assert!(!rule.starts_with("+@"), "{rule}: a category grows with the versions of Redis");
            assert!(!forbidden.iter().any(|command| *rule == format!("+{command}")), "{rule}");
        }
        assert!(rules.iter().any(|rule| rule == "-client|kill"));
        assert!(rules.iter().any(|rule| rule == "+hmget"));
    }

    #[test]
    fn a_file_of_users_has_one_line_for_each() {
        let file = redis_users_file("one", "two");
        let lines: Vec<_> = file.lines().collect();
        assert_eq!(lines[0], "user default reset on nopass +ping");
        assert!(lines[1].starts_with("user admin ") && lines[1].contains(" >two "));
        assert!(lines[2].starts_with("user stampede ") && lines[2].contains(" >one ") && !lines[2].contains("nopass"));
        assert_eq!(lines.len(), 3);
    }
}
