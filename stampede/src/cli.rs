//! The command line of the one program.

use crate::{secret_files, serve::Serve};
use clap::{CommandFactory, Error, FromArgMatches, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;
use stampede_chassis::config::with_default_address;
use stampede_cli::Format;
use stampede_vocab::Process;
use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

/// Run the processes of a flash sale, and what their operator needs: prepare, simulate, audit, messages, payments.
#[derive(Parser)]
#[command(name = "stampede", version, propagate_version = true)]
#[command(after_help = "Example, next to a running `cargo xtask up --pay-window-ms 6000`:
  . .stampede/up/secrets.env
  stampede simulate examples/flash-sale.toml --acknowledged acknowledged.json && stampede audit --acknowledged acknowledged.json")]
pub struct Cli {
    /// How results are printed on stdout
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Text, global = true)]
    pub format: Format,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run one process of the mesh until it is stopped
    #[command(after_help = "Example:\n  stampede serve order --help")]
    Serve {
        /// Which process
        #[command(subcommand)]
        process: Serve,
    },
    /// What the operator does
    #[command(flatten)]
    Operator(Box<stampede_cli::Command>),
    /// Print the description of the API that the gateway serves
    #[command(after_help = "Example:\n  stampede openapi > openapi.json")]
    Openapi,
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  stampede completions bash > /etc/bash_completion.d/stampede")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Reads the command line and the environment, and the files that secrets are in.
pub fn parse() -> Result<Cli, Error> {
    parse_from(env::args_os().collect())
}

fn parse_from(args: Vec<OsString>) -> Result<Cli, Error> {
    let args = secret_files::read(&command(), args)?;
    let cli = Cli::from_arg_matches(&command().try_get_matches_from(args)?)?;
    if cli.format == Format::Json && !matches!(cli.command, Command::Operator(_)) {
        let text = "-o json is for results, and this command has none";
        return Err(command().error(ErrorKind::ArgumentConflict, text));
    }
    Ok(cli)
}

/// The whole command line, with the addresses that each process listens on by default.
fn command() -> clap::Command {
    let with_addresses = |serve: clap::Command| {
        let served = Process::all().filter(|process| *process != Process::Sandbox);
        served.fold(serve, |serve, process| {
            serve.mut_subcommand(process.name(), |command| with_default_address(command, process))
        })
    };
    secret_files::with_companions(Cli::command().mut_subcommand("serve", with_addresses))
}

/// Prints the completions of `shell` on stdout.
pub fn print_completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "stampede", &mut script);
    print(&script)
}

/// Prints the description of the API on stdout.
pub fn print_openapi() -> ExitCode {
    match stampede_gateway::openapi() {
        Ok(text) => print(text.as_bytes()),
        Err(error) => {
            eprintln!("stampede: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn print(text: &[u8]) -> ExitCode {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("stampede: stdout cannot be written to: {error}");
            ExitCode::from(2)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Answers a command line that does not parse, or that asks for help.
pub fn not_understood(error: &Error) -> ExitCode {
    // A closed output cannot be reported anywhere.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    if asks_for_json(env::args().skip(1)) {
        stampede_cli::print_json_error(error.render().to_string().trim_end());
    }
    ExitCode::from(2)
}

/// Whether a command line that could not be parsed asks for JSON.
fn asks_for_json(args: impl IntoIterator<Item = String>) -> bool {
    let mut before = String::new();
    args.into_iter().any(|arg| {
        let separate = arg == "json" && ["-o", "--output"].contains(&before.as_str());
        let joined = ["-ojson", "-o=json", "--output=json"].contains(&arg.as_str());
        before = arg;
        separate || joined
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_vocab::Service;
    use std::collections::{BTreeMap, BTreeSet};

    fn help(path: &[&str]) -> String {
        let mut command = command();
        command.build();
        let found = path.iter().fold(&mut command, |command, name| command.find_subcommand_mut(name).unwrap());
        found.render_long_help().to_string()
    }

    #[test]
    fn json_is_asked_for_in_any_way_that_the_parser_takes() {
        for line in ["-o json audit", "audit -ojson", "audit --output=json", "audit --output json x", "-o=json"] {
            assert!(asks_for_json(line.split(' ').map(str::to_owned)), "{line}");
        }
        for line in ["audit --json file", "json", "-o text json", "--acknowledged json"] {
            assert!(!asks_for_json(line.split(' ').map(str::to_owned)), "{line}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_command_ends_its_help_with_an_example() {
        let mut all = command();
        all.build();
        let top = all.get_subcommands().map(|one| vec![one.get_name().to_owned()]);
        let below = ["serve", "messages", "payments"].into_iter().flat_map(|above| {
            let found = all.find_subcommand(above).unwrap().get_subcommands();
            found.map(move |one| vec![above.to_owned(), one.get_name().to_owned()])
        });
        for path in top.chain(below).filter(|path| path.last().unwrap() != "help") {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let help = help(&path);
            let example = format!("stampede {}", path.join(" "));
            assert!(help.contains("Example") && help.contains(&example), "{help}");
        }
    }

    #[test]
    fn each_process_listens_by_default_where_the_others_expect_it() {
        for process in Process::all() {
            let address = format!("[default: 127.0.0.1:{}]", process.port());
            assert!(help(&["serve", process.name()]).contains(&address), "{process}");
        }
    }

    #[test]
    fn every_process_can_be_served() {
        let mut all = command();
        all.build();
        let served = all.find_subcommand("serve").unwrap().get_subcommands().map(clap::Command::get_name);
        let served: BTreeSet<&str> = served.filter(|name| *name != "help").collect();
        assert_eq!(served, Process::all().map(Process::name).collect());
    }

    /// The flags with the addresses of what a process uses, by the registry.
    fn addresses_of(process: Process) -> BTreeSet<String> {
        let servers: &[&str] = match process {
            Process::Sandbox => &["webhook-url"],
            Process::Service(Service::Payment) => &["database-url", "kafka-brokers", "provider-url"],
            Process::Service(_) => &["database-url", "kafka-brokers"],
            Process::Gateway => &[],
        };
        let servers = servers.iter().copied().chain(process.redis().map(|_| "redis-url")).map(str::to_owned);
        servers.chain(process.calls().iter().map(|peer| format!("{peer}-urls"))).collect()
    }

    /// The links between processes that `cargo xtask chaos` strikes are those of the registry.
    #[test]
    fn every_process_takes_the_addresses_that_the_registry_names() {
        let mut all = command();
        all.build();
        for process in Process::all() {
            let served = all.find_subcommand("serve").unwrap().find_subcommand(process.name()).unwrap();
            let flags = served.get_arguments().filter_map(clap::Arg::get_long);
            let is_address = |flag: &&str| ["-url", "-urls", "-brokers"].iter().any(|end| flag.ends_with(end));
            let flags: BTreeSet<String> = flags.filter(is_address).map(str::to_owned).collect();
            assert_eq!(flags, addresses_of(process), "{process}");
            for peer in process.calls() {
                let name = format!("{peer}-urls");
                let flag = served.get_arguments().find(|arg| arg.get_long() == Some(name.as_str()));
                let variable = flag.and_then(clap::Arg::get_env).and_then(|variable| variable.to_str());
                assert_eq!(variable, Some(peer.urls_variable().as_str()), "{process}");
            }
        }
    }

    #[test]
    fn a_variable_means_the_same_in_every_process() {
        let mut all = command();
        all.build();
        let (mut meanings, mut defaults) = (BTreeMap::new(), BTreeMap::new());
        for process in all.find_subcommand("serve").unwrap().get_subcommands() {
            for arg in process.get_arguments().filter(|arg| arg.get_id() != "listen_addr") {
                let Some(variable) = arg.get_env() else { continue };
                let meaning = arg.get_help().map(ToString::to_string);
                let first = meanings.entry(variable).or_insert_with(|| (process.get_name(), meaning.clone()));
                assert_eq!(first.1, meaning, "{variable:?} in {} and {}", first.0, process.get_name());
                let [default] = arg.get_default_values() else { continue };
                let first = defaults.entry(variable).or_insert_with(|| (process.get_name(), default));
                assert_eq!(first.1, default, "the default of {variable:?} in {} and {}", first.0, process.get_name());
            }
        }
    }

    #[test]
    fn watchers_are_polled_for_by_one_flag_with_a_variable_of_each_service() {
        let mut all = command();
        all.build();
        let mut polling = BTreeSet::new();
        for process in all.find_subcommand("serve").unwrap().get_subcommands() {
            let mut flags = process.get_arguments();
            let Some(flag) = flags.find(|arg| arg.get_id() == "watch_interval_ms") else { continue };
            let variable = format!("STAMPEDE_{}_WATCH_INTERVAL_MS", process.get_name().to_uppercase());
            assert_eq!(flag.get_env().and_then(|env| env.to_str()), Some(variable.as_str()));
            polling.insert(process.get_name());
        }
        assert_eq!(polling, BTreeSet::from(["event", "inventory", "order"]));
    }

    #[test]
    fn json_is_refused_where_there_are_no_results() {
        let args = ["stampede", "-o", "json", "serve", "sandbox"].map(OsString::from).to_vec();
        assert!(parse_from(args).err().unwrap().to_string().contains("-o json"));
    }
}
