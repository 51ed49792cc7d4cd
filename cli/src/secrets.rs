//! `stampede secrets`: makes the secrets of a mesh once, each as a file, for `--auth-secret-file` and its like.

use crate::{
    output::{Output, print_json, print_text},
    prepare::with_schema,
};
use anyhow::{Context, ensure};
use rand::Rng;
use serde::Serialize;
use stampede_vocab::{REDIS_USER, Service, redis_users_file};
use std::{
    fs::{self, OpenOptions, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Bytes of a secret, before it is written in hexadecimal: the length of the hash that it keys.
const BYTES: usize = 32;

/// Make the secrets of a mesh, each as a file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  stampede secrets --directory secrets --database-host 127.0.0.1:3306
  stampede serve gateway --auth-secret-file secrets/auth/secret --mesh-secret-file secrets/mesh/secret \\
    --redis-url redis://127.0.0.1:6379/0

A secret that is there already is kept, so the command may be repeated. URLs, and the users of Redis, are written anew.
With --redis-host also redis/url, redis/event_url, and redis-server/users.acl for `redis-server --aclfile`.")]
pub struct Args {
    /// Directory to make them in: auth/secret, mesh/secret, webhook/secret, database/password, and database/*_url
    #[arg(long, value_name = "DIRECTORY")]
    directory: PathBuf,

    /// Database server that the URLs lead to
    #[arg(long, env = "STAMPEDE_DATABASE_HOST", value_name = "HOST:PORT")]
    database_host: String,

    /// Account of the database
    #[arg(long, env = "STAMPEDE_DATABASE_USER", default_value = "stampede")]
    database_user: String,

    /// Redis that the URLs lead to; without it nothing is made for it
    #[arg(long, env = "STAMPEDE_REDIS_HOST", value_name = "HOST:PORT")]
    redis_host: Option<String>,

    /// Prefix of schema names
    #[arg(long, env = "STAMPEDE_SCHEMA_PREFIX", default_value = "stampede_")]
    schema_prefix: String,

    /// Rights of the files, in octal: those that share a directory may be of different users
    #[arg(long, value_name = "MODE", default_value = "400", value_parser = parse_mode)]
    mode: u32,
}

#[derive(Serialize)]
struct Written {
    made: Vec<String>,
    kept: Vec<String>,
}

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && mode & 0o400 != 0 => Ok(mode),
        _ => Err("expected rights that let the owner read, such as 400 or 444".to_owned()),
    }
}

/// Makes the secrets that are missing, and prints the names of all files.
pub fn run(args: &Args, output: Output) -> anyhow::Result<()> {
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c));
    ensure!(plain(&args.database_host), "--database-host is HOST:PORT, but {:?} is not", args.database_host);
    ensure!(plain(&args.database_user), "--database-user {:?} would have to be escaped in a URL", args.database_user);
    let redis_host = args.redis_host.as_deref();
    let redis_is_plain = redis_host.is_none_or(plain);
    ensure!(redis_is_plain, "--redis-host is HOST:PORT, but {:?} is not", redis_host.unwrap_or_default());
    let mut written = Written { made: Vec::new(), kept: Vec::new() };
    let of_redis = redis_host.map(|_| ["redis/password", "redis-server/admin_password"]);
    for name in ["auth/secret", "mesh/secret", "webhook/secret", "database/password"]
        .into_iter()
        .chain(of_redis.into_iter().flatten())
    {
        let made = make_once(&args.directory.join(name), args.mode)?;
        if made { written.made.push(name.to_owned()) } else { written.kept.push(name.to_owned()) }
    }
    let redis = redis_host.map(|host| files_of_redis(args, host)).transpose()?;
    for (name, text) in urls_of_database(args)?.into_iter().chain(redis.into_iter().flatten()) {
        write(&args.directory.join(&name), &text, args.mode)?;
        written.made.push(name);
    }
    if output.json {
        return print_json(&written);
    }
    print_text(format_args!("{}: made {}", args.directory.display(), written.made.join(" ")))?;
    if written.kept.is_empty() {
        return Ok(());
    }
    print_text(format_args!("{}: kept {}", args.directory.display(), written.kept.join(" ")))
}

/// Returns the database's URLs, by the names of their files.
fn urls_of_database(args: &Args) -> anyhow::Result<Vec<(String, String)>> {
    let password = read(args, "database/password")?;
    let server = format!("mysql://{}:{password}@{}", args.database_user, args.database_host);
    let schemas = Service::ALL.into_iter().map(|service| {
        let url = with_schema(&server, &format!("{}{service}", args.schema_prefix));
        (format!("database/{service}_url"), url)
    });
    Ok(std::iter::once(("database/url".to_owned(), server.clone())).chain(schemas).collect())
}

/// Returns the URLs and the users of Redis, by the names of their files. Event has a logical database of its own.
fn files_of_redis(args: &Args, host: &str) -> anyhow::Result<Vec<(String, String)>> {
    let password = read(args, "redis/password")?;
    let users = redis_users_file(&password, &read(args, "redis-server/admin_password")?);
    let url = |database| format!("redis://{REDIS_USER}:{password}@{host}/{database}");
    let files = [("redis/url", url(0)), ("redis/event_url", url(1)), ("redis-server/users.acl", users)];
    Ok(files.map(|(name, text)| (name.to_owned(), text)).into())
}

fn read(args: &Args, name: &str) -> anyhow::Result<String> {
    let path = args.directory.join(name);
    let secret = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(secret.trim_end().to_owned())
}

/// Writes a new secret, unless there is one.
fn make_once(path: &Path, mode: u32) -> anyhow::Result<bool> {
    if fs::metadata(path).is_ok_and(|data| data.len() > 0) {
        return Ok(false);
    }
    let mut bytes = [0_u8; BYTES];
    rand::rng().fill_bytes(&mut bytes);
    let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write(path, &secret, mode)?;
    Ok(true)
}

/// Writes a file atomically, with the mode `mode` from the start.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let written = || -> std::io::Result<()> {
        fs::create_dir_all(path.parent().expect("a secret lies in a directory"))?;
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    written().with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_that_nobody_could_read_by_are_refused() {
        assert_eq!(parse_mode("444"), Ok(0o444));
        for text in ["044", "9", "1777", "read"] {
            assert!(parse_mode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_is_made_once_and_is_only_for_whom_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth/secret");
        assert!(make_once(&path, 0o400).unwrap());
        let secret = fs::read_to_string(&path).unwrap();
        assert_eq!(secret.len(), 2 * BYTES);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
        assert!(!make_once(&path, 0o400).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), secret);
    }
}
