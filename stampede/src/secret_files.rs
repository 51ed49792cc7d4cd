//! Secrets out of files: every flag that holds a secret has a companion `--<flag>-file`, with a variable of its own.
//!
//! A secret is a flag whose value `--help` hides when it comes from the environment. A companion's file is read before
//! the command line is parsed, and its content takes the place of the secret, in memory only: neither the list of
//! processes nor the environment shows it.

use clap::{Arg, ArgMatches, Command, Error, error::ErrorKind, parser::ValueSource};
use std::{ffi::OsString, fs, path::PathBuf};

/// What a companion's id ends with.
const SUFFIX: &str = "_file";

/// Gives every secret of this command and those below it a companion.
pub fn with_companions(command: Command) -> Command {
    let companions: Vec<Arg> =
        command.get_arguments().filter(|arg| arg.is_hide_env_values_set()).map(companion).collect();
    let below: Vec<String> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    below.into_iter().fold(command.args(companions), |command, name| command.mut_subcommand(name, with_companions))
}

fn companion(secret: &Arg) -> Arg {
    let id = format!("{}{SUFFIX}", secret.get_id());
    let flag = secret.get_long().expect("a secret has a long flag").to_owned();
    let variable = secret.get_env().expect("a secret has a variable").to_string_lossy().into_owned();
    let companion = Arg::new(id)
        .long(format!("{flag}-file"))
        .env(format!("{variable}_FILE"))
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help(format!("File that --{flag} is read from; a newline at its end does not count"));
    match secret.get_help_heading() {
        Some(heading) => companion.help_heading(heading.to_owned()),
        None => companion,
    }
}

/// The arguments, with the content of each file that a companion names put in as the secret. Fails if a file cannot be
/// read or is empty, or if the secret is given twice.
pub fn read(command: &Command, mut args: Vec<OsString>) -> Result<Vec<OsString>, Error> {
    // Any other mistake in the arguments is reported when the result is parsed.
    let Ok(matches) = command.clone().ignore_errors(true).try_get_matches_from(&args) else { return Ok(args) };
    let (chosen, matches) = deepest(command, &matches);
    let mut secrets = Vec::new();
    for secret in chosen.get_arguments().filter(|arg| arg.is_hide_env_values_set()) {
        let (id, flag) = (secret.get_id().as_str(), secret.get_long().expect("a secret has a long flag"));
        let file = matches.try_get_one::<PathBuf>(&format!("{id}{SUFFIX}")).ok().flatten();
        let Some(file) = file else { continue };
        if is_given(matches, id) {
            let text = format!("--{flag} and --{flag}-file exclude each other, also as variables: leave out one");
            return Err(command.clone().error(ErrorKind::ArgumentConflict, text));
        }
        let content = fs::read_to_string(file).map_err(|error| refused(command, flag, file, &error.to_string()))?;
        match content.trim_end_matches(['\r', '\n']) {
            "" => return Err(refused(command, flag, file, "it is empty")),
            content => secrets.push(OsString::from(format!("--{flag}={content}"))),
        }
    }
    // Before a `--`: what stands behind it is no flag, and is printed where it is not understood.
    let end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    args.splice(end..end, secrets);
    Ok(args)
}

fn deepest<'a>(mut command: &'a Command, mut matches: &'a ArgMatches) -> (&'a Command, &'a ArgMatches) {
    while let Some((name, below)) = matches.subcommand() {
        let Some(found) = command.find_subcommand(name) else { break };
        (command, matches) = (found, below);
    }
    (command, matches)
}

fn is_given(matches: &ArgMatches, id: &str) -> bool {
    let known = matches.try_contains_id(id).unwrap_or(false);
    known && matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

fn refused(command: &Command, flag: &str, file: &std::path::Path, why: &str) -> Error {
    command.clone().error(ErrorKind::Io, format!("--{flag}-file {}: {why}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tempfile::NamedTempFile;

    fn command() -> Command {
        let secret = |id: &'static str| Arg::new(id).long(id).env(id.to_uppercase()).hide_env_values(true);
        let below = Command::new("below").arg(secret("key").required(true)).arg(Arg::new("plain").long("plain"));
        let below = below.arg(Arg::new("place"));
        with_companions(Command::new("top").subcommand(below))
    }

    fn file(content: &str) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file
    }

    fn key(args: &[&str]) -> Result<String, String> {
        let command = command();
        let args = args.iter().map(OsString::from).collect();
        let read = read(&command, args).map_err(|error| error.to_string())?;
        let matches = command.try_get_matches_from(read).map_err(|error| error.to_string())?;
        Ok(matches.subcommand().unwrap().1.get_one::<String>("key").unwrap().clone())
    }

    #[test]
    fn a_secret_is_read_from_its_file_without_the_newline() {
        let file = file("s3cret with spaces \n");
        let path = file.path().to_str().unwrap();
        assert_eq!(key(&["top", "below", "--key-file", path, "place"]).unwrap(), "s3cret with spaces ");
        assert_eq!(key(&["top", "below", "--key", "plain"]).unwrap(), "plain");
        let error = key(&["top", "below", "--key-file", path, "--", "place", "too-much"]).unwrap_err();
        assert!(error.contains("too-much") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_flag() {
        let (full, empty) = (file("x"), file("\n"));
        let (full, empty) = (full.path().to_str().unwrap(), empty.path().to_str().unwrap());
        assert!(
            key(&["top", "below", "--key-file", "/no/such/file"]).unwrap_err().contains("--key-file /no/such/file")
        );
        assert!(key(&["top", "below", "--key-file", empty]).unwrap_err().contains("empty"));
        assert!(key(&["top", "below", "--key-file", full, "--key", "y"]).unwrap_err().contains("exclude each other"));
        assert!(key(&["top", "below"]).unwrap_err().contains("--key"));
        assert!(key(&["top", "below", "--plain-file", full]).is_err());
    }
}
