//! That the command line is well formed.

use super::*;
use clap::CommandFactory;

#[test]
fn the_command_line_is_well_formed_and_ends_with_an_example() {
    let mut command = Cli::command();
    command.build();
    command.clone().debug_assert();
    let of_bench = ["bench", "bench ghz", "bench jmeter", "bench gateway", "bench event-open", "bench watchers"];
    for path in ["setup", "up", "demo", "chaos", "test", "clients"].into_iter().chain(of_bench) {
        let found =
            path.split(' ').fold(&mut command, |above, name| above.find_subcommand_mut(name).expect("it is there"));
        let help = found.render_help().to_string();
        assert!(help.contains("Example") && help.contains(&format!("cargo xtask {path}")), "{help}");
    }
}
